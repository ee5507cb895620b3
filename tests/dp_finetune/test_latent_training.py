"""DP training of networks that work on latents: a small one, and Stable Diffusion's by its prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from data.samples import SampleSet
from dp_finetune.adapters import Adapter, AdapterName, Layers
from dp_finetune.engines import BatchedEngine, ViewsEngine
from dp_finetune.objective import Views
from dp_finetune.per_example import unsupported_layers
from models.diffusion.model import DiffusionModel
from models.ema import trainable
from scripts import sample
from tests.command import bytes_of, call, fork, fork_run, output_of, released, save_every_step
from tests.data.test_folder import class_folders
from tests.dp_finetune.test_engines import AUGMULT, EXAMPLES, by_engine, relative
from tests.models.test_latents import made_latent_unet
from tests.models.test_text_to_image import chosen, settings
from tests.models.test_text_to_image import pipeline as pipeline
from tests.rejects import assert_refused, rejects

TRAINING = ["method.steps=2", "method.augmult=2", "method.batch_size=8", "method.num_samples=4", "eval=none", "device=cpu"]
CPU = torch.device("cpu")


def prompted(pipeline: Path) -> Any:
    model = chosen(pipeline)
    return model.build(None, CPU, 0).denoiser


@pytest.mark.parametrize("kind", list(AdapterName))
def test_gradients_of_each_adapter_of_a_prompted_network_equal_a_float64_loop(kind, pipeline):
    denoiser, rng, rows = prompted(pipeline), torch.Generator().manual_seed(3), EXAMPLES * AUGMULT
    Adapter(kind=kind, rank=2, layers=list(Layers)).apply(denoiser.network)
    for p in trainable(denoiser.network).values():
        p.data.add_(0.05 * torch.randn(p.shape, generator=rng))  # an adapter that is zero would hide mistakes
    x, noise = (torch.randn(rows, 4, 2, 2, generator=rng) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 0]).repeat_interleave(AUGMULT)
    views = Views(x, torch.randint(0, 1000, (rows,), generator=rng), labels, noise, EXAMPLES, denoiser)
    assert not unsupported_layers(denoiser.network)
    found = [by_engine(engine(denoiser.network, 1000, AUGMULT), views) for engine in (ViewsEngine, BatchedEngine)]

    exact, expected = denoiser.network.double(), []
    for i in range(EXAMPLES):
        mine = slice(i * AUGMULT, (i + 1) * AUGMULT)
        eps = exact(x[mine].double(), views.t[mine], labels[mine]).sample
        loss = (eps - noise[mine]).square().mean()
        gradients = torch.autograd.grad(loss, list(trainable(exact).values()), allow_unused=True, materialize_grads=True)
        expected.append(torch.cat([g.flatten() for g in gradients]))
    for one in found:
        assert relative(one.double(), torch.stack(expected)) < 1e-4


def own(folder: Path, side: int) -> list[str]:
    return ["dataset=folder", f"dataset.path={class_folders(folder / 'mine', 30)}", f"dataset.image_size={side}"]


@pytest.mark.usefixtures("here")
def test_lora_of_stable_diffusion_is_released_as_diffusers_loads_it_and_is_sampled_from(pipeline, tmp_path):
    run = [*own(tmp_path, 16), *settings(pipeline), "method=dp_loda", "+adapter=lora", "method.rank=2", *TRAINING]
    result = call(*run)
    assert result.code == 0, result.err
    folder = output_of(Path("run")) / "model"
    pipe: Any = StableDiffusionPipeline.from_pretrained(pipeline, safety_checker=None)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.rglob("*") if path.is_file())  # others may read it
    pipe.load_lora_weights(folder)
    loaded = {name.replace(".default_0", ""): p for name, p in pipe.unet.named_parameters() if "lora_" in name}
    stored = load_file(folder / "pytorch_lora_weights.safetensors")
    assert {f"unet.{name}" for name in loaded} == set(stored)
    assert all(torch.equal(p, stored[f"unet.{name}"]) for name, p in loaded.items())
    assert any(p.abs().max() > 0 for name, p in loaded.items() if "lora_B" in name)
    sample.main([f"model={folder}", f"base={pipeline}", "num_samples=6", "out=more"])
    assert SampleSet.load(Path("more/samples_00000.npz")).images.shape == (6, 16, 16, 3)
    with rejects("base"):
        sample.main([f"model={folder}", "num_samples=6", "out=others"])


@pytest.mark.usefixtures("here")
def test_a_killed_training_of_latents_resumes_to_the_same_release(tmp_path):
    model = made_latent_unet(tmp_path / "public")
    run = ["method=dp_diffusion", *model, "tuned=none", *TRAINING, "privacy.noise_seed=7", "method.gradient_engine=batched"]
    run += ["dataset.fraction=0.05", "method.num_samples=10"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = released(fork_run(whole, *run), whole)
    saved = parts / "run" / "internal" / "checkpoints" / "training.pt"
    fork(parts, *run, patch=save_every_step).kill_when(saved.exists)
    assert bytes_of(released(fork_run(parts, *run), parts)) == bytes_of(expected)
    assert (expected / "model" / "vae" / "config.json").exists()


def test_a_latent_network_without_public_weights_is_refused(here):
    assert_refused(
        call("method=dp_diffusion", "dataset=rehearsal", "model=latent_unet", "model.pretrained=null"), "model.pretrained"
    )


def test_a_plan_of_training_stable_diffusion_needs_no_weights(pipeline, tmp_path, here):
    folder = shutil.copytree(pipeline, tmp_path / "shapes")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    run = [*own(tmp_path, 16), *settings(folder), "method=dp_loda", "+adapter=attention", *TRAINING]
    plan = json.loads(call(*run, "plan_only=true").out)
    unet = prompted(pipeline).network
    Adapter(kind=AdapterName.attention).apply(unet)
    assert plan["model"]["trainable_parameters"] == sum(p.numel() for p in trainable(unet).values())
    assert plan["work"]["flops"] > 0
    assert plan["work"]["peak_memory_gib"] > 0


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "predicts noise"),
        ("text_encoder/config.json", {"hidden_size": 8}, "reads text of 16 numbers"),
        ("unet/config.json", {"_class_name": "UNet2DModel", "in_channels": "x"}, "unet/"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "it is a StableDiffusionXLPipeline"),
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "second text encoder"),
        ("model_index.json", {"vae": None}, "it has no tokenizer/, vae/"),
    ],
)
def test_a_pipeline_that_cannot_be_trained_is_refused_in_one_line(file, change, words, pipeline, tmp_path, here):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **change}))
    if "vae" in change:
        for part in ("vae", "tokenizer"):
            shutil.rmtree(folder / part)
    run = [*own(tmp_path, 16), *settings(folder), "method=dp_loda", *TRAINING]
    assert_refused(call(*run), f"model.pretrained={folder}", words)


@pytest.mark.usefixtures("here")
def test_all_of_stable_diffusion_is_released_with_what_it_takes_to_sample(pipeline, tmp_path):
    run = [*own(tmp_path, 16), *settings(pipeline), "method=dp_diffusion", "tuned=none", *TRAINING, "model.sampler=dpm_solver"]
    result = call(*run, "dataset.class_counts=uniform")
    assert result.code == 0, result.err
    release = output_of(Path("run"))
    model = DiffusionModel.load(release / "model", 0, CPU)
    there = SampleSet.load(release / "samples.npz")
    assert model.sampler == "dpm_solver"
    assert np.array_equal(model.random(there.labels, stream="dp_diffusion/samples"), there.images)
    UNet2DConditionModel.from_pretrained(release / "model" / "unet")
