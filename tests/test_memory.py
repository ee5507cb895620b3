"""The peak memory that a plan states holds: 100,000 private images of 32×32 stay under 2 GB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.command import ROOT, call

SMALL = ["model=loda_unet", "model.channels=[8,8]", "model.attention_levels=[]", "model.norm_groups=4", "model.head_channels=8"]
DP = [*SMALL, "model.respacing='2'", "method=dp_diffusion", "method.steps=1", "method.batch_size=50", "method.augmult=1"]
PE = ["model.labels=10", "model.null_label=true", "method=pe", "method.iterations=2", "method.variation_degrees=[2,1]"]
PE = ["model=diffusers", "model.features=null", *PE, "model.respacing='2'", "method.lookahead=1", "method.embedding=pixels"]


NOISE = ["privacy.epsilon=null", "privacy.noise_multiplier=2"]


def peak_gib(*overrides: str) -> float:
    """Of `python run.py` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "run.py", *overrides], cwd=ROOT, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 2**20


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for name, count in (("train", 100_000), ("test", 100)):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.savez(folder / f"{name}.npz", images=images, labels=np.arange(count) % 10)
    place = [f"dataset.path={folder}/train.npz", f"dataset.test_path={folder}/test.npz", "dataset.image_size=32"]
    return [
        "dataset=folder",
        *place,
        "privacy.epsilon=null",
        "privacy.noise_multiplier=2",
        "method.num_samples=100",
        "device=cpu",
    ]


@pytest.mark.slow
def test_100_000_images_stay_under_2_gb_and_under_what_the_plan_says(many, tmp_path):
    trained = [*many, *DP, "eval=none"]
    evolved = [*many, *PE, "eval=none", f"model.pretrained={tmp_path}/dp/release/model"]
    for name, overrides in (("dp", trained), ("pe", evolved)):
        used = peak_gib(*overrides, f"hydra.run.dir={tmp_path / name}")
        stated = json.loads(call(*overrides, "plan_only=true").out)["work"]["peak_memory_gib"]
        assert used < 2e9 / 2**30
        assert used < stated < 2 * used


@pytest.mark.slow
def test_images_larger_than_the_model_are_held_while_they_are_decoded_and_counted(tmp_path):
    row = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)
    for name, count in (("train", 1000), ("test", 10)):
        np.savez(tmp_path / f"{name}.npz", images=np.repeat(row, count, 0), labels=np.arange(count) % 2)
    place = [f"dataset.path={tmp_path}/train.npz", f"dataset.test_path={tmp_path}/test.npz", "dataset.image_size=32"]
    settings = ["dataset=folder", *place, *DP, *NOISE, "method.num_samples=10", "eval=none", "device=cpu"]
    used = peak_gib(*settings, f"hydra.run.dir={tmp_path / 'run'}")
    stated = json.loads(call(*settings, "plan_only=true").out)["work"]["peak_memory_gib"]
    assert used < stated < 2 * used


@pytest.mark.parametrize("method", ["pe", "dp_diffusion", "public_only"])
def test_a_plan_states_peak_memory(method, here: Path):
    work = json.loads(call(f"method={method}", "privacy.epsilon=null", "privacy.noise_multiplier=2", "plan_only=true").out)[
        "work"
    ]
    assert 0.3 < work["peak_memory_gib"] < 6
