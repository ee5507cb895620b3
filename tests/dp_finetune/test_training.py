"""DP training through the command: what is spent, what a kill or several processes change (nothing), what is released."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dp_finetune.objective import Objective
from dp_finetune.training import poisson_batch
from privacy.accounting import compose_epsilon
from privacy.mechanisms import SampledGaussian, Spend
from privacy.noise import NoiseSource
from store.run_dir import RunDir
from tests.command import (
    ROOT,
    bytes_of,
    call,
    fork,
    fork_run,
    in_processes,
    ledger,
    parts_of,
    published,
    released,
    save_every_step,
    typed,
)

STEPS = 4
TRAIN = [
    "+experiment=dp_diffusion/smoke",
    "eval=none",
    "device=cpu",
    "method.num_samples=10",
    f"method.steps={STEPS}",
    "method.batch_size=8",
    "method.augmult=2",
    "method.gradient_engine=batched",
    "privacy.epsilon=null",
    "privacy.noise_multiplier=3",
]
SEEDED = [*TRAIN, "privacy.noise_seed=1"]
WEIGHTS = "model/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    released(fork_run(folder, *SEEDED), folder)
    return folder


def test_every_step_is_in_the_ledger_and_the_certificate_composes_them(trained):
    assert ledger(trained / "run") == [f"dp_sgd/step={step}" for step in range(1, STEPS + 1)]
    release = published(trained / "run")
    document = json.loads((release / "privacy.json").read_text())
    spends = [Spend("dp_sgd", SampledGaussian(3.0, 8 / 1437), STEPS)]
    assert document["epsilon"] == compose_epsilon(spends, document["delta"])
    assert [(entry["purpose"], entry["count"]) for entry in document["mechanisms"]] == [("dp_sgd", STEPS)]


def test_training_and_sampling_are_what_took_time(trained):
    parts = parts_of(trained / "run")
    assert parts.keys() == {"training", "sampling", "other"}
    assert all(parts[name] > 0 for name in ("training", "sampling"))


def test_training_moves_the_weights_and_the_released_model_names_no_path(trained):
    release = published(trained / "run")
    before = load_file(ROOT / "models" / "weights" / "digits" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(release / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name].float(), weight) for name, weight in after.items() if weight.numel() > 1)
    for path in (release / "model").rglob("*.json"):
        assert "/" not in path.read_text()


def test_the_released_model_is_a_diffusers_model_that_makes_what_was_released(trained):
    from diffusers import UNet2DModel

    release = published(trained / "run")
    config = typed(*SEEDED, f"model.pretrained={release}/model")
    model = config.model.build(config.dataset, torch.device("cpu"), config.seed)
    assert isinstance(model.denoiser.network, UNet2DModel)
    with np.load(release / "samples.npz") as arrays:  # type: ignore[operator]
        images, labels = arrays["images"], arrays["labels"]
    again = model.api.random(labels, stream="dp_diffusion/samples")
    assert np.array_equal(images, again)


@pytest.mark.parametrize("entries", [0, 2, STEPS])
def test_a_killed_training_resumes_to_bitwise_the_same_release(trained, tmp_path, entries):
    saved = tmp_path / "run" / "internal" / "checkpoints" / "training.pt"
    going = fork(tmp_path, *SEEDED, patch=save_every_step)
    going.kill_when(lambda: len(ledger(tmp_path / "run")) >= entries and (saved.exists() or not entries))
    assert RunDir(tmp_path / "run").published is None
    release = released(fork_run(tmp_path, *SEEDED), tmp_path)
    expected = published(trained / "run")
    assert bytes_of(release) == bytes_of(expected)
    assert ledger(tmp_path / "run") == ledger(trained / "run")


def test_a_lost_ledger_is_written_again_from_the_checkpoint(trained, tmp_path):
    saved = tmp_path / "run" / "internal" / "checkpoints" / "training.pt"
    fork(tmp_path, *SEEDED, patch=save_every_step).kill_when(saved.exists)
    (tmp_path / "run" / "internal" / "ledger.jsonl").unlink()
    released(fork_run(tmp_path, *SEEDED), tmp_path)
    assert ledger(tmp_path / "run") == ledger(trained / "run")


def test_a_run_out_of_time_releases_at_what_it_has_spent(here):
    result = call(*SEEDED, "method.max_minutes=1e-9")
    assert result.code == 0, result.err
    release = published(here / "run")
    document = json.loads((release / "privacy.json").read_text())
    assert document["mechanisms"][0]["count"] == 1
    assert document["epsilon"] == compose_epsilon([Spend("dp_sgd", SampledGaussian(3.0, 8 / 1437), 1)], document["delta"])
    state = torch.load(here / "run" / "internal" / "checkpoints" / "training.pt", weights_only=True)
    assert (state["step"], state["stopped"]) == (1, True)


def test_two_processes_train_the_same_model_and_spend_once(trained, tmp_path):
    done = in_processes(2, "run.py", *SEEDED, f"hydra.run.dir={tmp_path}/run")
    both, alone = released(done, tmp_path), published(trained / "run")
    assert ledger(tmp_path / "run") == ledger(trained / "run")
    assert (both / "privacy.json").read_bytes() == (alone / "privacy.json").read_bytes()
    one, two = load_file(alone / WEIGHTS), load_file(both / WEIGHTS)
    difference = sum((one[name] - two[name]).square().sum() for name in one) / sum(w.square().sum() for w in one.values())
    assert float(difference) ** 0.5 < 1e-4
    assert done.out.count("run directory") == 1


def test_unconditional_training_uses_no_label(here, monkeypatch):
    seen = set()
    views = Objective.views

    def spy(self, x, labels, *rest):
        seen.update(labels.tolist())
        return views(self, x, labels, *rest)

    monkeypatch.setattr(Objective, "views", spy)
    assert call(*SEEDED, "method.conditional=false").code == 0
    assert seen == {0}


def test_a_batch_holds_each_example_with_the_sample_rate_and_never_repeats():
    noise, size, rate = NoiseSource(b"k" * 32), 400, 0.05
    batches = [poisson_batch(size, rate, noise, f"dp_sgd/step={step}") for step in range(500)]
    assert all(len(set(batch.tolist())) == len(batch) for batch in batches)
    sizes = np.array([len(batch) for batch in batches])
    assert abs(sizes.mean() - size * rate) < 4 * (size * rate * (1 - rate) / 500) ** 0.5
    assert abs(sizes.var() / (size * rate * (1 - rate)) - 1) < 0.3
    per_example = np.bincount(np.concatenate(batches), minlength=size)
    assert per_example.max() < 500 * rate + 6 * (500 * rate) ** 0.5


def test_steps_without_a_single_example_are_steps(here):
    assert call(*TRAIN, "privacy.noise_seed=2", "method.batch_size=1", "method.steps=3").code == 0
    noise = NoiseSource.for_run(here / "run" / "internal" / "noise.key", 2)
    assert [len(poisson_batch(1437, 1 / 1437, noise, f"dp_sgd/step={step}")) for step in (1, 2, 3)] == [1, 0, 0]
    assert len(ledger(here / "run")) == 3
