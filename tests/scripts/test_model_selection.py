"""The command that compares ranks on samples with ranks on real images: kept cells, numbers, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.datasets.digits import handwritten
from data.samples import SampleSet
from scripts import model_selection
from scripts.model_selection import REAL, SYNTHETIC, TRANSFER, Family, ranking
from tests.command import ROOT
from tests.rejects import rejects

SMALL = [
    "device=cpu", "~grid.families.resnet9", "grid.families.cnn.steps=2", "grid.families.cnn.batch_size=8",
    "grid.families.cnn.learning_rates=[0.1,0.001]",
]  # fmt: skip


@pytest.fixture
def release(tmp_path) -> Path:
    images, labels = handwritten("private")
    SampleSet(images[:100], labels[:100], 10).save(tmp_path / "release.npz")
    return tmp_path / "release.npz"


def test_cells_are_judged_ranked_drawn_and_kept(release, monkeypatch, capsys):
    model_selection.main([f"release={release}", *SMALL])
    out = release.parent / "internal" / "model_selection"
    told = json.loads((out / "model_selection.json").read_text())
    assert [(cell["family"], cell["learning_rate"], cell["weight_decay"]) for cell in told["cells"]] == [
        ("cnn", 0.1, 0.0),
        ("cnn", 0.001, 0.0),
    ]
    assert all(0 <= cell[name] <= 1 for cell in told["cells"] for name in (SYNTHETIC, TRANSFER, REAL))
    assert np.asarray(Image.open(out / "model_selection.png")).std() > 0
    assert "<svg" in (out / "model_selection.svg").read_text()
    assert "trained on real images without privacy: nothing of this may be shared" in capsys.readouterr().out
    next((out / "cells").iterdir()).unlink()
    trained: list[float] = []
    judged = model_selection.judged

    def recorded(cell: Family, *rest: Any) -> dict[str, float]:
        trained.append(cell.learning_rate)
        return judged(cell, *rest)

    monkeypatch.setattr(model_selection, "judged", recorded)
    model_selection.main([f"release={release}", *SMALL])
    assert len(trained) == 1
    assert json.loads((out / "model_selection.json").read_text()) == told


def cells(*rows: tuple[float, float, float]) -> list[dict[str, float]]:
    return [dict(zip((SYNTHETIC, TRANSFER, REAL), row, strict=True)) for row in rows]


def test_a_ranking_tells_rank_correlation_and_what_the_choice_is_worth():
    told = ranking(cells((0.9, 0.5, 0.1), (0.8, 0.4, 0.2), (0.7, 0.3, 0.3)))
    assert told[f"{TRANSFER}/spearman"] == pytest.approx(1)
    assert told[f"{REAL}/spearman"] == pytest.approx(-1)
    assert (told[f"{TRANSFER}/rank_of_chosen"], told[f"{REAL}/rank_of_chosen"]) == (1, 3)
    assert (told[f"{REAL}/accuracy_of_chosen"], told[f"{REAL}/accuracy_of_best"]) == (0.1, 0.3)
    assert ranking(cells((0.9, 0.5, 0.1), (0.9, 0.4, 0.2)))[f"{REAL}/spearman"] is None


@pytest.mark.parametrize(("name", "count"), [("table6", 33), ("smoke", 10)])
def test_a_stored_grid_is_checked_and_has_its_size(name, count):
    grid = model_selection._settings(["release=x", f"grid={name}"]).grid
    assert sum(len(family.cells) for family in grid.families.values()) == count
    assert name in {path.stem for path in (ROOT / "conf" / "grid").glob("*.yaml")}


def test_a_cell_is_a_recipe_with_one_pair():
    family = Family(learning_rates=[0.1, 0.2], weight_decays=[0.0, 1.0])
    assert [(cell.learning_rate, cell.weight_decay) for cell in family.cells] == [(0.1, 0.0), (0.1, 1.0), (0.2, 0.0), (0.2, 1.0)]


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ([], "release", None),
        (["release=nowhere"], "release", "nowhere"),
        (["release=x", "grid.holdout=1"], "grid.holdout", 1.0),
        (["release=x", "grid.families.cnn.learning_rates=[]"], "grid.families.cnn.learning_rates", []),
        (["release=x", "grid.families.cnn.learning_rates=[0]"], "grid.families.cnn.learning_rate", 0.0),
        (["release=x", "~grid.families.cnn", "~grid.families.resnet9"], "grid.families", {}),
    ],
)
def test_bad_settings_are_refused(overrides, key, value, here):
    with rejects(key, value):
        model_selection.main(overrides)
    assert not list(here.iterdir())
