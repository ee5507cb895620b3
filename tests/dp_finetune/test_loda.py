"""`method=dp_loda` through the command: what is trained, kept, resumed and released."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.samples import SampleSet
from dp_finetune import adapters
from scripts import sample
from tests.command import ROOT, bytes_of, call, fork, fork_run, output_of, released, save_every_step, typed
from tests.rejects import assert_refused

TRAIN = [
    "+experiment=dp_loda/smoke",
    "eval=none",
    "device=cpu",
    "method.num_samples=10",
    "method.steps=3",
    "method.gradient_engine=batched",
    "privacy.epsilon=null",
    "privacy.noise_multiplier=3",
    "privacy.noise_seed=1",
]
EMBEDDED = ROOT / "models" / "weights"
TRAINABLE = 55_080


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loda")
    released(fork_run(folder, *TRAIN), folder)
    return folder


def test_only_adapters_are_in_checkpoint_optimizer_and_certificate(trained):
    state = torch.load(trained / "run" / "internal" / "checkpoints" / "training.pt", weights_only=True)
    assert all(name.endswith((".down.weight", ".up.weight")) for name in state["parameters"])
    assert state["parameters"].keys() == state["ema"]["average"].keys()
    assert sum(p.numel() for p in state["parameters"].values()) == TRAINABLE
    moments = [value["exp_avg"].numel() for value in state["optimizer"]["state"].values()]
    assert sum(moments) == TRAINABLE
    certificate = json.loads((output_of(trained / "run") / "privacy.json").read_text())
    assert certificate["trainable_parameters"] == TRAINABLE


def test_adapters_move_and_the_base_does_not(trained, monkeypatch, here):
    built = []
    build = adapters.Adapter.apply

    def spy(self, unet, seed=0):
        if next(unet.parameters()).device.type == "cpu":
            built.append((unet, {name: p.clone() for name, p in unet.named_parameters()}))
        build(self, unet, seed)

    monkeypatch.setattr(adapters.Adapter, "apply", spy)
    released(call(*TRAIN), here)
    ((unet, before),) = built
    after = {name.replace(".base.", "."): p for name, p in unet.named_parameters() if not p.requires_grad}
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], p) for name, p in after.items())
    stored = load_file(output_of(here / "run") / "model" / "adapter.safetensors")
    assert all(bool(value.any()) for name, value in stored.items() if name.endswith("up.weight"))
    assert bytes_of(output_of(here / "run")) == bytes_of(output_of(trained / "run"))


def test_the_release_is_the_adapter_alone_and_makes_what_was_released(trained):
    folder = output_of(trained / "run") / "model"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter.json",
        "adapter.safetensors",
        "privacy.json",
        "sampling.json",
        "scheduler",
    ]
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 400_000
    assert json.loads((folder / "adapter.json").read_text())["base"]["name"] == "digits"
    model = adapters.load(folder, lambda name: EMBEDDED / name, 0, torch.device("cpu"))
    released = SampleSet.load(folder.parent / "samples.npz")
    assert np.array_equal(model.random(released.labels, stream="dp_loda/samples"), released.images)


def test_a_killed_training_resumes_to_the_same_release(trained, tmp_path):
    saved = tmp_path / "run" / "internal" / "checkpoints" / "training.pt"
    fork(tmp_path, *TRAIN, patch=save_every_step).kill_when(saved.exists)
    assert bytes_of(released(fork_run(tmp_path, *TRAIN), tmp_path)) == bytes_of(output_of(trained / "run"))


def test_more_can_be_sampled_from_released_adapters(trained, tmp_path):
    folder = output_of(trained / "run") / "model"
    sample.main([f"model={folder}", "num_samples=20", f"out={tmp_path}/more", "device=cpu"])
    named = [f"base={EMBEDDED / 'digits'}", f"out={tmp_path}/named"]
    sample.main([f"model={folder}", "num_samples=20", *named, "device=cpu"])
    one, two = (SampleSet.load(tmp_path / name / "samples_00000.npz") for name in ("more", "named"))
    assert len(one) == 20
    assert np.array_equal(one.images, two.images)


def test_adapters_of_a_network_of_patches_are_released_and_sampled_from(here):
    base = here / "base"
    config = typed("model.patch=3", "model.pretrained=null", "method=dp_diffusion")
    config.model.build(config.dataset, torch.device("cpu"), 0).denoiser.save(base)
    patches = ["model.patch=3", f"model.pretrained={base}", "model.respacing=3", "method.steps=1"]
    folder = released(call(*TRAIN, *patches), here)
    there = SampleSet.load(folder / "samples.npz")
    model = adapters.load(folder / "model", lambda name: base, 0, torch.device("cpu"))
    assert np.array_equal(model.random(there.labels, stream="dp_loda/samples"), there.images)
    sample.main([f"model={folder}/model", f"base={base}", "num_samples=5", f"out={here}/more", "device=cpu"])
    assert SampleSet.load(here / "more" / "samples_00000.npz").images.shape == (5, 8, 8, 1)


@pytest.mark.parametrize("adapter", ["lora", "attention", "norm_bias", "full"])
def test_every_adapter_trains_and_releases(adapter, here):
    result = call(*TRAIN, f"method.adapter={adapter}", "method.steps=1", "method.guidance=0", "model.respacing=5")
    folder = released(result, here) / "model"
    assert (folder / ("unet" if adapter == "full" else "adapter.safetensors")).exists()


@pytest.mark.parametrize(
    ("override", "setting"),
    [
        ("method.rank=0", "method.rank=0"),
        ("method.adapter=lorra", "method.adapter"),
        ("method.pattern=nothing", "method.pattern=nothing"),
        ("method.guidance=-1", "method.guidance=-1.0"),
        ("model.pretrained=null", "model.pretrained=null"),
    ],
)
def test_bad_settings_are_one_line(override, setting, here):
    assert_refused(call(*TRAIN, override), setting)


def test_guidance_doubles_the_calls_of_sampling():
    plain, guided = (typed(*TRAIN, f"method.guidance={weight}") for weight in (0, 1))
    calls = [config.method.work(config.dataset, config.model)["network_calls"] or 0 for config in (plain, guided)]
    assert calls[1] - calls[0] == 10 * 20
