"""Settings are chosen on public images alone, and the command that follows is the one that would be run."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from conf.compose import combinations
from data.dataset import ClassCounts, Dataset
from data.datasets import digits
from data.datasets.rehearsal import Rehearsal
from data.datasets.rehearsed import Rehearsed, rehearsal_of
from data.samples import SampleSet
from privacy.inherited import PublicInput
from scripts import rehearse
from tests.command import ROOT, typed
from tests.rejects import rejects

TINY = ["method=dp_merf", "method.num_samples=20", "method.num_features=10", "method.length_scale=1", "method.batch_size=20"]
TINY += ["tuned=none", "eval.frechet.enabled=false", "eval.downstream.classifier=cnn", "eval.downstream.steps=2", "device=cpu"]
TINY += ["eval.downstream.batch_size=8", "dataset.fraction=0.05"]


@dataclass(kw_only=True)
class Twenty(Dataset):
    """Twenty public images, each one of its own; the private ones cannot be opened."""

    name: str = "twenty"
    class_counts: ClassCounts = ClassCounts.uniform
    private_images: int = 7

    num_test = 5
    num_public = 20
    shape = (2, 2, 1)

    @property
    def num_train(self):
        return self.private_images

    @property
    def all_classes(self):
        return ["private"]

    @property
    def public_classes(self):
        return ["a", "b"]

    def public(self):
        images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
        return SampleSet(images, np.arange(20) % 2, 2)


def test_it_prints_the_best_settings_and_their_command_and_opens_no_private_image(here, capsys, monkeypatch):
    monkeypatch.setattr(digits, "handwritten", None)  # nothing of the real digits can be opened
    sweep = [*TINY, "method.steps=1,2", "seed=0,1"]
    rehearse.main(sweep)
    out = capsys.readouterr().out
    command = shlex.split(out.splitlines()[-1])
    assert command[:2] == ["python", "run.py"]
    assert command.count("method.steps=1") + command.count("method.steps=2") == 1
    assert not any(part.startswith("seed") for part in command)
    assert typed(*command[2:]).dataset.name == "digits"
    assert "72 public images are taken for the 72 private ones" in out
    assert out.count("│    2 │") == 2  # two runs of each
    files = {path: path.read_bytes() for path in Path("runs/rehearsals").rglob("metrics.json")}
    assert len(files) == 4
    certificates = [json.loads(path.read_text()) for path in Path("runs/rehearsals").rglob("release/privacy.json")]
    assert {document["dataset"] for document in certificates} == {"rehearsal"}
    rehearse.main(["-m", *sweep])
    assert capsys.readouterr().out == out
    assert {path: path.read_bytes() for path in Path("runs/rehearsals").rglob("metrics.json")} == files


def test_printed_digits_of_other_faces_stand_in_for_written_ones():
    found = rehearsal_of(typed("dataset.keep_classes=['3','5']").dataset)
    assert isinstance(found, Rehearsal)
    assert (found.image_size, found.keep_classes) == (8, ["3", "5"])
    assert found.num_private == pytest.approx(typed("dataset.keep_classes=['3','5']").dataset.num_private, abs=2)


@pytest.mark.parametrize(("private", "stand_in"), [(7, 7), (900, 10)])
def test_public_images_are_parted_into_private_public_and_test(private, stand_in):
    found = rehearsal_of(Twenty(private_images=private))
    assert isinstance(found, Rehearsed)
    found.check()
    parts = [found.private(), found.test(), found.public()]
    assert [len(part) for part in parts] == [stand_in, 4, 16 - stand_in] == [found.num_private, found.num_test, found.num_public]
    assert sorted(int(image.flat[0]) for part in parts for image in part.images) == list(range(20))
    assert found.classes == ["a", "b"]
    again = rehearsal_of(Twenty(private_images=private))
    assert (again.private().images == parts[0].images).all()
    assert found.public_inputs() == [] == list(found.own_public_parts())


def test_what_public_images_have_spent_already_is_spent_in_a_rehearsal_too(monkeypatch):
    spent = [PublicInput("dataset.public_path", ROOT)]
    monkeypatch.setattr(Twenty, "public_inputs", lambda self: spent)
    assert rehearsal_of(Twenty()).public_inputs() == spent


def test_an_experiment_s_own_sweep_is_taken_too():
    assert len(combinations(["+experiment=rehearsal/moments", "seed=0,1"])) == 40
    assert combinations(["method=pe", "seed=1"]) == [["method=pe", "seed=1"]]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["dataset=cifar10", "dataset.public_name=none", "method=dp_moments"], "dataset"),
        (["dataset.made_up_users=3", "privacy.unit=user", "method=dp_moments", "tuned=none"], "privacy.unit"),
        (["eval=none"], "eval.downstream.enabled"),
        (["+selection=private"], "selection"),
        (["plan_only=true"], "plan_only"),
        (["method=dp_moments", "method.cells=1,0"], "method.cells"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(overrides, key, here):
    with rejects(key):
        rehearse.main(overrides)
    assert list(here.iterdir()) == []
