"""The dashboard: what is read of run folders."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboard.folders import CURVE_POINTS, Contents, find, read
from tests.scripts.dashboard.fake_runs import fake_run


def row(folder: Path, **contents: bool) -> dict[str, Any]:
    return read(folder, "name", Contents(**contents))[0]


def test_a_run_becomes_a_row(tmp_path):
    found = row(fake_run(tmp_path / "a", "dp_diffusion", epsilon=3.0, seed=7, accuracy=0.9, distance=14.5))
    assert found["status"] == "finished"
    assert found["private"] is True
    assert (found["method"], found["dataset"], found["seed"]) == ("dp_diffusion", "digits", 7)
    assert (found["epsilon"], found["delta"], found["num_samples"]) == (3.0, 0.00034, 3000)
    assert (found["accuracy"], found["spread"], found["classifiers"], found["classifier"]) == (0.9, 0.014, 3, "wrn40_4")
    assert (found["distance"], found["space"]) == (14.5, "frechet/public_features_train")
    assert (found["method_seconds"], found["evaluation_seconds"]) == (207.0, 60.0)


def test_runs_are_found_once_and_not_inside_each_other(tmp_path):
    runs = [fake_run(tmp_path / name) for name in ("a", "sweep/0", "sweep/1")]
    (tmp_path / "internal" / "reference_statistics").mkdir(parents=True)
    (tmp_path / "sweep" / "internal").mkdir()
    fake_run(runs[0] / "internal" / "ranks" / "1")
    assert find([tmp_path, runs[0], tmp_path / "sweep"]) == runs


def test_runs_that_a_sweep_links_to_are_found(tmp_path):
    fake_run(tmp_path / "by_config" / "ab12")
    (tmp_path / "sweeps" / "now").mkdir(parents=True)
    (tmp_path / "sweeps" / "now" / "0").symlink_to(tmp_path / "by_config" / "ab12")
    assert len(find([tmp_path])) == 1
    assert find([tmp_path / "sweeps"]) == [tmp_path / "sweeps" / "now" / "0"]


def test_an_infinite_epsilon_is_not_private(tmp_path):
    found = row(fake_run(tmp_path / "a", "real_data", epsilon=math.inf, private=False))
    assert (found["epsilon"], found["private"]) == ("inf", False)
    assert "without noise" in found["problem"]


def damage(folder: Path, how: str) -> None:
    if how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "release emptied":
        (folder / "release" / "privacy.json").unlink()
    elif how == "release gone":
        shutil.rmtree(folder / "release")
    else:
        name, text = how.split(": ", 1)
        (folder / name).write_bytes(text.encode("latin-1"))


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "release emptied",
        "release gone",
        "config.yaml: {",
        "config.yaml: [1]",
        "config.yaml: \xff",
        "internal/metrics.json: {",
        "internal/metrics.json: []",
        'internal/metrics.json: {"wrn40_4/accuracy": "x"}',
        "release/privacy.json: 3",
    ],
)
def test_a_broken_run_is_said_to_be_broken(tmp_path, how):
    damage(fake_run(tmp_path / "a"), how)
    assert find([tmp_path]) == [tmp_path / "a"]
    found = row(tmp_path / "a")
    assert found["status"] == "broken"
    assert found["problem"]
    assert str(tmp_path) not in found["problem"]


def test_an_unfinished_run_shows_what_it_has(tmp_path):
    found = row(fake_run(tmp_path / "a", finished=False))
    assert (found["status"], found["private"], found["epsilon"], found["accuracy"]) == ("unfinished", True, 10.0, None)
    shutil.rmtree(tmp_path / "a" / "release")
    assert (row(tmp_path / "a")["status"], row(tmp_path / "a")["private"]) == ("unfinished", None)


def test_curves_are_thinned_and_a_torn_line_is_left_out(tmp_path):
    folder = fake_run(tmp_path / "a")
    lines = [json.dumps({"loss": float(t), "step": t, "seconds": 0.0, "internal": False}) for t in range(1001)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"loss": 1']))
    points = read(folder, "a", Contents())[1]["curves"]["loss"]["points"]
    assert len(points) <= CURVE_POINTS + 1
    assert (points[0], points[-1]) == ([0, 0.0], [1000, 1000.0])


def test_the_first_of_several_distances_and_the_configured_classifier_are_shown(tmp_path):
    folder = fake_run(tmp_path / "a")
    metrics = {
        "discriminator/accuracy": 0.5,
        "cnn/accuracy": 0.1,
        "wrn40_4/accuracy": 0.2,
        "kid/test": 1.0,
        "fid/test_n": 9,
        "fid/test": 2.0,
    }
    (folder / "internal" / "metrics.json").write_text(json.dumps(metrics))
    found = row(folder)
    assert (found["classifier"], found["accuracy"], found["space"], found["distance"]) == ("wrn40_4", 0.2, "fid/test", 2.0)


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path):
    folder = fake_run(tmp_path / "a")
    (folder / "release" / "grid.png").write_bytes(b"no picture")
    assert row(folder)["picture"] is False
    assert row(folder)["status"] == "finished"
