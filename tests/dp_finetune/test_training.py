"""DP training through the command: what is spent, what a kill or several processes change (nothing), what is released."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.samples import SampleSet
from dp_finetune import dpsgd, pace
from dp_finetune.engines import BatchedEngine
from dp_finetune.objective import Objective
from dp_finetune.optimizer import PrivateOptimizer
from dp_finetune.training import Trainer, poisson_batch
from models.diffusion.model import DiffusionModel
from privacy.accounting import compose_epsilon
from privacy.mechanisms import SampledGaussian, Spend
from privacy.noise import NoiseSource
from scripts import sample
from store.run_dir import RunDir
from tests.command import (
    ROOT,
    bytes_of,
    call,
    ended,
    fork,
    fork_run,
    in_processes,
    ledger,
    on_nodes,
    output_of,
    parts_of,
    released,
    save_every_step,
    typed,
)
from tests.rejects import assert_refused, rejects
from tracking import ranks

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
    release = output_of(trained / "run")
    document = json.loads((release / "privacy.json").read_text())
    spends = [Spend("dp_sgd", SampledGaussian(3.0, 8 / 1437), STEPS)]
    assert document["epsilon"] == compose_epsilon(spends, document["delta"])
    assert [(entry["purpose"], entry["count"]) for entry in document["mechanisms"]] == [("dp_sgd", STEPS)]


def test_training_and_sampling_are_what_took_time(trained):
    parts = parts_of(trained / "run")
    assert parts.keys() == {"training", "sampling", "other"}
    assert all(parts[name] > 0 for name in ("training", "sampling"))


def test_training_moves_the_weights_and_the_released_model_names_no_path(trained):
    release = output_of(trained / "run")
    before = load_file(ROOT / "models" / "weights" / "digits" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(release / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name].float(), weight) for name, weight in after.items() if weight.numel() > 1)
    for path in (release / "model").rglob("*.json"):
        text = path.read_text()
        assert '"/' not in text  # no place of this machine
        assert path.name == "privacy.json" or "/" not in text


def test_the_released_model_is_a_diffusers_model_that_makes_what_was_released(trained):
    from diffusers import UNet2DModel

    release = output_of(trained / "run")
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
    assert RunDir(tmp_path / "run").output is None
    release = released(fork_run(tmp_path, *SEEDED), tmp_path)
    expected = output_of(trained / "run")
    assert bytes_of(release) == bytes_of(expected)
    assert ledger(tmp_path / "run") == ledger(trained / "run")


def test_a_killed_training_on_patches_resumes_and_its_model_is_sampled_from(tmp_path):
    """3×3 pixels each: 8×8 images with zeros around them to 12×12."""
    patches = [*SEEDED, "model.patch=3", "model.pretrained=null", "model.respacing=3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = released(fork_run(whole, *patches), whole)
    saved = parts / "run" / "internal" / "checkpoints" / "training.pt"
    fork(parts, *patches, patch=save_every_step).kill_when(saved.exists)
    assert RunDir(parts / "run").output is None
    assert bytes_of(released(fork_run(parts, *patches), parts)) == bytes_of(expected)

    there = SampleSet.load(expected / "samples.npz")
    model = DiffusionModel.load(expected / "model", 0, torch.device("cpu"))
    assert np.array_equal(model.random(there.labels, stream="dp_diffusion/samples"), there.images)
    sample.main([f"model={expected}/model", "num_samples=5", f"out={tmp_path}/more", "device=cpu"])
    assert SampleSet.load(tmp_path / "more" / "samples_00000.npz").images.shape == (5, 8, 8, 1)
    stored = ["model=diffusers", f"model.pretrained={expected}/model", "model.patch=3", "model.image_size=8"]
    config = typed(*SEEDED, *stored, "model.features=null", "model.respacing=3")
    again = config.model.build(config.dataset, torch.device("cpu"), config.seed).api
    assert np.array_equal(again.random(there.labels, stream="dp_diffusion/samples"), there.images)


def test_a_lost_ledger_is_written_again_from_the_checkpoint(trained, tmp_path):
    saved = tmp_path / "run" / "internal" / "checkpoints" / "training.pt"
    fork(tmp_path, *SEEDED, patch=save_every_step).kill_when(saved.exists)
    (tmp_path / "run" / "internal" / "ledger.jsonl").unlink()
    released(fork_run(tmp_path, *SEEDED), tmp_path)
    assert ledger(tmp_path / "run") == ledger(trained / "run")


def a_second_each(work: Callable[[], None], times: int, device: torch.device) -> float:
    work()
    return 1.0


def test_a_time_is_a_number_of_steps_decided_before_the_first_and_spent_for(here, monkeypatch):
    """Batches of 8 in passes of 4, a second each, and one for noise and update: 3 seconds a step."""
    monkeypatch.setattr(pace, "_seconds", a_second_each)
    result = call(*SEEDED, "method.max_minutes=0.1")
    assert result.code == 0, result.err
    assert result.err.count("method.max_minutes=0.1: 2 of 4 steps") == 1
    assert ledger(here / "run") == ["dp_sgd/step=1", "dp_sgd/step=2"]
    document = json.loads((output_of(here / "run") / "privacy.json").read_text())
    assert document["epsilon"] == compose_epsilon([Spend("dp_sgd", SampledGaussian(3.0, 8 / 1437), 2)], document["delta"])


@pytest.mark.parametrize(("minutes", "steps"), [("1e-9", 1), ("1e9", STEPS)])
def test_a_short_time_is_one_step_and_a_long_one_all_of_them(here, minutes, steps):
    assert call(*SEEDED, f"method.max_minutes={minutes}").code == 0
    assert len(ledger(here / "run")) == steps


def test_no_clock_is_read_once_a_step_is_spent_for(here, monkeypatch):
    ticks = itertools.count(step=1e6)
    monkeypatch.setattr("dp_finetune.training.time.monotonic", lambda: next(ticks))
    monkeypatch.setattr(pace, "_seconds", a_second_each)
    assert call(*SEEDED, "method.max_minutes=0.15").code == 0
    assert len(ledger(here / "run")) == 3


def test_a_timing_changes_nothing_in_what_is_trained(trained, here):
    result = call(*SEEDED, "method.max_minutes=1e9")
    assert result.code == 0, result.err
    assert (output_of(here / "run") / WEIGHTS).read_bytes() == (output_of(trained / "run") / WEIGHTS).read_bytes()


def test_the_number_of_steps_is_decided_before_anything_is_spent(here, monkeypatch):
    def steps_that_fit(*args: Any) -> int:
        assert not ledger(here / "run")
        return pace.steps_that_fit(*args)

    monkeypatch.setattr(dpsgd, "steps_that_fit", steps_that_fit)
    assert call(*SEEDED, "method.max_minutes=1e9").code == 0


def test_a_resumed_run_takes_the_number_that_was_decided_whatever_the_clock_says_now(here, monkeypatch):
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pace, "_seconds", a_second_each)
        patch.setattr(Trainer, "finish_step", killed)
        patch.setattr(Trainer, "add", lambda *args, **kwargs: None)
        patch.setattr(dpsgd, "steps_that_fit", lambda *args: 2)
        with pytest.raises(KeyboardInterrupt):
            call(*SEEDED, "method.max_minutes=0.1")
    assert json.loads((here / "run" / "internal" / "checkpoints" / "steps.json").read_text()) == 2
    monkeypatch.setattr(dpsgd, "steps_that_fit", lambda *args: pytest.fail("timed again"))
    result = call(*SEEDED, "method.max_minutes=0.1")
    assert result.code == 0, result.err
    assert ledger(here / "run") == ["dp_sgd/step=1", "dp_sgd/step=2"]


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["method.max_grad_norm=1e-44"], "max_grad_norm", 1e-44),
        (["method.max_grad_norm=1e31"], "max_grad_norm", 1e31),
        (["method.learning_rate=1e-44"], "learning_rate", 1e-44),
        (["method.batch_size=null", "method.sample_rate=1e-300"], "sample_rate", 1e-300),
        (["method.max_minutes=inf"], "max_minutes", math.inf),
        (["method.max_minutes=0"], "max_minutes", 0.0),
    ],
)
def test_what_float32_cannot_hold_and_rates_that_draw_nothing_are_refused(overrides, key, value):
    with rejects(f"method.{key}", value):
        typed(*TRAIN, *overrides)


def test_every_pass_has_the_same_size_and_what_fills_it_is_in_no_sum(here, monkeypatch):
    passes, clipped = set(), []
    call_engine, clip = BatchedEngine.__call__, PrivateOptimizer.clip_and_accumulate

    def engine(self, views):
        passes.add((views.examples, len(views.t)))
        call_engine(self, views)

    def counted(self):
        clipped.append({len(p.grad_sample) for p in self.params})
        clip(self)

    monkeypatch.setattr(BatchedEngine, "__call__", engine)
    monkeypatch.setattr(PrivateOptimizer, "clip_and_accumulate", counted)
    assert call(*SEEDED).code == 0
    assert passes == {(4, 8)}
    noise = NoiseSource.for_run(here / "run" / "internal" / "noise.key", 1)
    batches = [poisson_batch(1437, 8 / 1437, noise, f"dp_sgd/step={step}") for step in range(1, STEPS + 1)]
    assert any(len(batch) % 4 for batch in batches)
    assert sum(max(sizes) for sizes in clipped) == sum(len(batch) for batch in batches)


@pytest.fixture(scope="session")
def by_two(tmp_path_factory) -> Path:
    """Where a run of two processes is."""
    folder = tmp_path_factory.mktemp("by_two")
    done = in_processes(2, "run.py", *SEEDED, f"hydra.run.dir={folder}/run")
    released(done, folder)
    assert done.out.count("run directory") == 1
    return folder / "run"


def test_two_processes_train_the_same_model_and_spend_once(trained, by_two):
    both, alone = output_of(by_two), output_of(trained / "run")
    assert ledger(by_two) == ledger(trained / "run")
    assert (both / "privacy.json").read_bytes() == (alone / "privacy.json").read_bytes()
    one, two = load_file(alone / WEIGHTS), load_file(both / WEIGHTS)
    difference = sum((one[name] - two[name]).square().sum() for name in one) / sum(w.square().sum() for w in one.values())
    assert float(difference) ** 0.5 < 1e-4


LOSES_A_NODE = """
import os
import signal
import sys

from dp_finetune import training
from run import cli

finish_step, training.CHECKPOINT_SECONDS = training.Trainer.finish_step, 0.0

def dies(self, purpose):
    if self.step == 2 and os.environ["RANK"] == "1":
        os.kill(os.getppid(), signal.SIGTERM)  # the agent, which ends its processes
        signal.pause()
    finish_step(self, purpose)

training.Trainer.finish_step = dies
sys.exit(cli())
"""


def test_two_nodes_that_lose_each_other_go_on_to_the_release_of_one_node(by_two, tmp_path, monkeypatch):
    script = tmp_path / "loses_a_node.py"
    script.write_text(LOSES_A_NODE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [*SEEDED, f"hydra.run.dir={tmp_path}/run"]
    first, second = [ended(agent) for agent in on_nodes(2, str(script), *command)]
    assert first.code != 0
    assert second.code != 0
    (line,) = [line for line in first.err.splitlines() if line.startswith("error:")]
    assert "the same command, on every node, goes on" in line
    assert "RuntimeError" not in first.err
    assert not (tmp_path / "run" / "internal" / "error.txt").exists()
    assert RunDir(tmp_path / "run").output is None
    assert len(ledger(tmp_path / "run")) == 3
    again = in_processes(2, "run.py", *command, nodes=2)
    assert again.code == 0, again.err
    assert bytes_of(output_of(tmp_path / "run")) == bytes_of(output_of(by_two))
    assert ledger(tmp_path / "run") == ledger(by_two)


@pytest.mark.parametrize(
    ("name", "found", "told"), [("share_disk", False, "do not share"), ("differing", ["torch"], "same torch")]
)
def test_nodes_that_would_not_be_one_run_are_refused_before_a_spend(here, monkeypatch, name, found, told):
    monkeypatch.setattr(ranks, name, lambda _: found)
    assert_refused(call(*SEEDED), "hydra.run.dir", told)
    assert ledger(here / "run") == []


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
