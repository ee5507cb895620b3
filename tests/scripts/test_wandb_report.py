"""The W&B report: its specification, and that it names what runs record. Nothing here reaches the network."""

from __future__ import annotations

import json
import re
import socket
import sys

import pytest
import wandb
from PIL import Image

from conf.help import run_script
from scripts.wandb_report import METHODS, main
from tests.rejects import assert_line
from tracking.tracker import TrackerConfig, TrackerName

pytest.importorskip("wandb_workspaces", reason="needs pip install wandb-workspaces")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Of the network; wandb's own process is talked to over a socket on this machine."""
    connect = socket.socket.connect

    def local(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


def specification(capsys, *arguments: str) -> dict:
    main(["project=study", "dry_run=true", *arguments])
    return json.loads(capsys.readouterr().out)


def test_the_report_has_plots_tables_and_the_grids_of_each_method(capsys):
    made = specification(capsys, "entity=", "title=Mine")
    assert (made["displayName"], made["project"]["name"]) == ("Mine", "study")
    grids = [block["metadata"] for block in made["spec"]["blocks"] if block["type"] == "panel-grid"]
    first, *others = grids
    axes = [(panel["config"]["xAxis"], panel["config"]["yAxis"]) for panel in first["panelBankSectionConfig"]["panels"]]
    epsilon = "summary:privacy/epsilon"
    assert axes == [(epsilon, "summary:wrn40_4/accuracy"), (epsilon, "summary:frechet/public_features_train")]
    assert [runs["name"] for runs in first["runSets"]] == METHODS
    assert "summary:privacy/delta" in first["runSets"][0]["runFeed"]["columnOrder"]
    assert [grid["panelBankSectionConfig"]["panels"][0]["config"]["mediaKeys"] for grid in others] == [["grid"]] * len(METHODS)
    for method, grid in zip(METHODS, others, strict=True):
        (chosen,) = grid["runSets"][0]["filters"]["filters"]
        assert (chosen["key"], chosen["value"]) == ({"section": "summary", "name": "method"}, method)


def test_everything_that_the_report_names_is_recorded_by_a_run(tmp_path, capsys, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")
    (tmp_path / "internal").mkdir()
    tracker = TrackerConfig(name=TrackerName.wandb, mode="offline", internal=True).build(tmp_path, {"seed": 0})
    tracker.summary({"privacy/epsilon": 10.0, "privacy/delta": 1e-5, "method": "pe", "dataset": "digits"})  # as run.py does
    tracker.log({"wrn40_4/accuracy": 0.9, "frechet/public_features_train": 20.0}, internal=True)
    Image.new("L", (4, 4)).save(tmp_path / "grid.png")
    tracker.image("grid", tmp_path / "grid.png")
    tracker.finish()
    wandb.teardown()
    (record,) = (tmp_path / "internal").glob("wandb/offline-run-*/*.wandb")
    recorded = record.read_bytes()
    text = json.dumps(specification(capsys))
    named = set(re.findall(r'"summary:([^"]+)"', text)) | {"method", "grid"}
    assert len(named) == 7
    assert [name for name in named if name.encode() not in recorded] == []


@pytest.mark.parametrize(
    ("arguments", "setting", "word"),
    [
        ([], "project=null", ""),
        (["project=a", "methods=[pf]"], "methods=pf", "pe, dp_diffusion"),
        (["project=a", "methods=[]"], "methods=[]", "pe, dp_diffusion"),
        (["project=a", "dry_run=perhaps"], "dry_run", "perhaps"),
        (["project=a", "colour=red"], "colour", ""),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, arguments, setting, word):
    assert_line(refused(monkeypatch, capsys, arguments), setting, word)


def test_without_the_library_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert "pip install wandb-workspaces" in refused(monkeypatch, capsys, ["project=a", "dry_run=true"])


def test_a_refusal_of_wandb_is_one_line(monkeypatch, capsys):
    import wandb_workspaces.reports.v2 as reports

    def save(self):
        raise Exception("not logged in to W&B\nand more")

    monkeypatch.setattr(reports.Report, "save", save)
    line = refused(monkeypatch, capsys, ["project=a", "entity=me"])
    assert_line(line, "project=a", "not logged in to W&B")
    assert "and more" not in line


def refused(monkeypatch, capsys, arguments: list[str]) -> str:
    monkeypatch.setattr("sys.argv", ["wandb_report", *arguments])
    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err
