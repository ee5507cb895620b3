"""Where numbers go: all of them into JSON lines, and to W&B only those that may leave this machine."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image

from tests.rejects import rejects
from tracking import services
from tracking.settings import without_places
from tracking.tracker import JsonLines, Several, TrackerConfig, TrackerName


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "internal").mkdir()
    return tmp_path


def test_each_line_says_its_step_and_whether_it_is_internal(folder):
    tracker = JsonLines(folder / "metrics.jsonl")
    tracker.log({"pe/noisy_votes": 12.5, "pe/images_with_votes": 3}, step=4)
    tracker.log({"frechet": 1.0}, internal=True)
    first, second = lines(folder)
    assert first.pop("seconds") >= 0
    assert first == {"step": 4, "internal": False, "pe/noisy_votes": 12.5, "pe/images_with_votes": 3}
    assert (second["step"], second["internal"], second["frechet"]) == (None, True, 1.0)


def test_a_resumed_run_adds_to_its_lines(folder):
    for value in (1.0, 2.0):
        JsonLines(folder / "metrics.jsonl").log({"a": value})
    assert [line["a"] for line in lines(folder)] == [1.0, 2.0]


def test_no_metric_can_hide_the_internal_mark(folder):
    JsonLines(folder / "metrics.jsonl").log({"internal": 0.0, "frechet": 1.0}, internal=True)
    assert lines(folder)[0]["internal"] is True


def test_the_default_is_json_lines_alone(folder):
    assert isinstance(TrackerConfig().build(folder, {}), JsonLines)
    assert not (folder / "internal" / "wandb_id").exists()


def test_several_trackers_hear_the_same(folder):
    files = [folder / "a.jsonl", folder / "b.jsonl"]
    Several(*map(JsonLines, files)).log({"a": 1.0}, step=2, internal=True)
    first, second = (json.loads(file.read_text()) for file in files)
    assert (first["step"], first["internal"], first["a"]) == (second["step"], second["internal"], second["a"]) == (2, True, 1.0)


def offline_run(folder, config=None, **settings) -> bytes:
    """What W&B would upload of a run with one number of each kind."""
    tracker = TrackerConfig(name=TrackerName.wandb, mode="offline", **settings).build(folder, {"seed": 31337, **(config or {})})
    tracker.log({"shareable_number": 0.25}, step=1)
    tracker.log({"internal_number": 0.75}, internal=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "grid.png")
    tracker.image("grid_picture", folder / "grid.png")
    tracker.summary({"privacy/epsilon": 10.0, "method": "spent_method"})
    tracker.finish()
    wandb.teardown()  # the record is whole once W&B's own process has ended
    (record,) = (folder / "internal").glob("wandb/offline-run-*/*.wandb")
    files = [path for path in record.parent.rglob("files/**/*") if path.is_file() and path.suffix != ".png"]
    return b"".join(path.read_bytes() for path in (record, *files))


@pytest.fixture
def quiet_wandb(tmp_path_factory, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp(name)))
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")


@pytest.mark.parametrize("internal", [False, True])
def test_wandb_gets_internal_numbers_only_where_asked(folder, quiet_wandb, internal):
    record = offline_run(folder, internal=internal)
    assert b"shareable_number" in record
    assert b"grid_picture" in record
    assert b"31337" in record
    assert b"privacy/epsilon" in record
    assert b"spent_method" in record
    assert (b"internal_number" in record) is internal
    assert [line["internal"] for line in lines(folder)] == [False, True]


def test_wandb_gets_no_place_of_this_machine(folder, quiet_wandb, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/secret_program.py", "dataset.path=/somewhere/secret_argument"])
    monkeypatch.setattr(socket, "gethostname", lambda: "secret_host")
    data = folder / "secret_folder" / "my_images"
    data.mkdir(parents=True)
    config = {
        "dataset": {"path": str(data), "test_path": "clients/secret_client/test.zip"},
        "model": {"pretrained": "~/secret/unet"},
    }
    record = offline_run(folder, config)
    assert all(name in record for name in (b"my_images", b"test.zip", b"unet"))
    assert b"secret" not in record
    for name in (os.uname().nodename, getpass.getuser(), os.getcwd(), sys.executable, str(folder.parent)):
        by_chance = len(name) < 5 or name == "localhost"  # random identifiers hold two letters now and then
        assert name.encode() not in record or by_chance


PLACES = [
    ({"path": "a/b"}, {"path": "b"}),
    ({"dataset": {"public_path": "../x/y.zip", "name": "folder"}}, {"dataset": {"public_path": "y.zip", "name": "folder"}}),
    ({"pretrained": "/home/me/unet/"}, {"pretrained": "unet"}),
    ({"clip": "~/weights", "file": "C:\\Users\\me\\a.pt"}, {"clip": "weights", "file": "a.pt"}),
    ({"cache": "tests/tracking"}, {"cache": "tracking"}),
    ({"files": ["/a/b", {"c": "/d/e"}]}, {"files": ["b", {"c": "e"}]}),
    ({"prompts": ["a cat and/or a dog", "x" * 5000]}, {"prompts": ["a cat and/or a dog", "x" * 5000]}),
    ({"path": None, "seed": 3, "on": True, "rate": 0.5}, {"path": None, "seed": 3, "on": True, "rate": 0.5}),
    ({"factory": "my_module:MyAPI", "pretrained": "digits", "respacing": ""}, None),
]


@pytest.mark.parametrize(("settings", "left"), PLACES)
def test_of_a_path_its_last_name_is_left_and_all_else_as_it_was(settings, left, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert without_places(settings) == (settings if left is None else left)


def test_a_resumed_run_is_the_same_run_elsewhere(folder):
    ids = [services._kept(folder / "wandb_id", lambda: secrets.token_hex(8)) for _ in range(2)]
    assert ids[0] == ids[1] != ""


def numbers_of(tracker) -> None:
    tracker.log({"shareable": 0.25}, step=3)
    tracker.log({"accuracy/class=a,b": 0.75}, internal=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save("grid.png")
    tracker.image("grid", Path("grid.png"))
    tracker.summary({"method": "pe"})
    tracker.finish()


def test_tensorboard_gets_every_number_under_internal_and_marks_those_of_real_data(folder, here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    numbers_of(TrackerConfig(name=TrackerName.tensorboard).build(folder, {"seed": 3}))
    found = EventAccumulator(str(folder / "internal" / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {"shareable", "internal/accuracy/class=a,b"}
    (event,) = found.Scalars("shareable")
    assert (event.step, event.value) == (3, 0.25)
    assert found.Tags()["images"] == ["grid"]
    assert len(lines(folder)) == 2


@pytest.mark.parametrize("internal", [False, True])
def test_mlflow_gets_internal_numbers_only_where_asked_and_a_resumed_run_goes_on(folder, here, monkeypatch, internal):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = TrackerConfig(name=TrackerName.mlflow, internal=internal, group="mine")
    config = {"dataset": {"path": "/somewhere/secret/images"}, "seed": 3}
    numbers_of(settings.build(folder, config))
    settings.build(folder, config).log({"shareable": 0.5}, step=4)
    client = MlflowClient(tracking_uri=(here / "runs" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("dp-image-synthesis")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"dataset.path": "images", "seed": "3"}
    assert ("internal/accuracy/class_a_b" in run.data.metrics) is internal
    assert [one.value for one in client.get_metric_history(run.info.run_id, "shareable")] == [0.25, 0.5]
    assert (run.data.tags["group"], run.data.tags["method"]) == ("mine", "pe")
    assert client.list_artifacts(run.info.run_id, "grid")[0].path == "grid/grid.png"


def test_a_tracker_whose_package_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with rejects("tracker.name", "mlflow", "mlflow-skinny"):
        TrackerConfig(name=TrackerName.mlflow).check()
    TrackerConfig().check()


def test_an_unknown_mode_is_refused_by_key():
    with rejects("tracker.mode", "later", "online, offline, disabled"):
        TrackerConfig(mode="later").check()
