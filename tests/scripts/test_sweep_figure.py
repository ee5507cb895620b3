"""The figure of a sweep, and that a sweep keeps what is finished."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from scripts.sweep_figure import draw
from tests.command import call


def run(folder: Path, adapter: str, seed: int, accuracy: float | None, trained: int = 10) -> None:
    for name in ("internal", "release"):
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": {"adapter": adapter}, "seed": seed}))
    (folder / "release" / "privacy.json").write_text(json.dumps({"epsilon": 1.0, "trainable_parameters": trained}))
    if accuracy is not None:
        metrics = {"wrn40_4/accuracy": accuracy, "wrn40_4/accuracy_spread": 0.01, "frechet/public_features_train": 20.0}
        (folder / "internal" / "metrics.json").write_text(json.dumps(metrics))


def test_runs_become_curves_and_unfinished_ones_are_named(tmp_path, capsys):
    for number, (adapter, seed, accuracy) in enumerate([("loda", 0, 0.8), ("loda", 1, 0.9), ("full", 0, 0.7), ("full", 1, None)]):
        run(tmp_path / str(number), adapter, seed, accuracy, 10 if adapter == "loda" else 1000)
    draw(tmp_path, "trainable_parameters", "method.adapter")
    written = json.loads((tmp_path / "internal" / "figure.json").read_text())["runs"]
    assert [(r["x"], r["curve"], r["seed"], r["wrn40_4/accuracy"]) for r in written] == [
        (10, "loda", 0, 0.8),
        (10, "loda", 1, 0.9),
        (1000, "full", 0, 0.7),
    ]
    assert f"{tmp_path}/3: is not finished" in capsys.readouterr().err
    assert np.asarray(Image.open(tmp_path / "internal" / "figure.png")).std() > 0
    assert "<svg" in (tmp_path / "internal" / "figure.svg").read_text()


def test_an_empty_sweep_draws_nothing(tmp_path):
    draw(tmp_path, "seed", "method.adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("here")
def test_a_sweep_given_again_keeps_what_is_finished_and_draws(tmp_path):
    overrides = ["+experiment=dp_loda/adapters", "device=cpu", f"hydra.sweep.dir={tmp_path}/sweep"]
    overrides += ["method.num_samples=10", "method.steps=1", "method.batch_size=8", "method.augmult=1", "model.respacing=4"]
    overrides += ["eval.downstream.steps=1", "eval.downstream.batch_size=8", "method.gradient_engine=batched"]
    overrides += ["privacy.epsilon=null", "privacy.noise_multiplier=5"]
    first = call(*overrides, "+adapter=loda,norm_bias")
    assert first.code == 0, first.err
    runs = {run["curve"]: run["x"] for run in json.loads((tmp_path / "sweep" / "internal" / "figure.json").read_text())["runs"]}
    assert runs == {"loda": 55_080, "norm_bias": 5_473}
    kept = (tmp_path / "sweep" / "0" / "internal" / "metrics.json").stat().st_mtime_ns
    again = call(*overrides, "+adapter=loda,norm_bias")
    assert again.code == 0, again.err
    assert "finished before, kept" in again.err
    assert (tmp_path / "sweep" / "0" / "internal" / "metrics.json").stat().st_mtime_ns == kept
