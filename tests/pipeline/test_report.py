"""The table at the end of a run: which stored floor and ceiling may stand beside it."""

from __future__ import annotations

import pytest

from pipeline.report import evaluator_settings, load_references, print_report
from privacy.mechanisms import Gaussian, Spend
from privacy.risk import risk
from store.run_dir import RunDir
from tests.command import typed


def test_stored_references_stand_beside_the_default_classifier():
    assert load_references(typed()) is not None
    assert load_references(typed("eval=seeds", "eval.downstream.sizes=[1000]")) is not None


@pytest.mark.parametrize(
    "change", ["classifier=cnn", "learning_rate=0.05", "augmult=2", "pretrain_steps=9", "choose_from=[0.1]", "steps=100"]
)
def test_they_do_not_beside_another_training(change):
    config = typed(f"eval.downstream.{change}")
    assert load_references(config) is None
    assert evaluator_settings(config) != evaluator_settings(typed())


@pytest.mark.parametrize(
    ("beside", "line"),
    [
        (
            {"wrn40_4/balanced_accuracy": 0.75, "wrn40_4/auc": 0.91},
            "Balanced accuracy, the mean over the classes: 75.0 %; AUC: 0.910.",
        ),
        ({"wrn40_4/balanced_accuracy": 0.75}, "Balanced accuracy, the mean over the classes: 75.0 %."),
        ({"wrn40_4/balanced_accuracy": 0.896}, None),
        ({}, None),  # from before there was one
    ],
)
def test_where_classes_are_unbalanced_the_balanced_accuracy_is_told(beside, line, tmp_path, capsys):
    (tmp_path / "release").mkdir()
    rate = {"wrn40_4/accuracy": 0.9, "wrn40_4/accuracy_spread": 0.0, "wrn40_4/accuracy_seeds": 1.0}
    certificate = {"private": True, "delta": 1e-5}
    print_report(typed(), {"privacy/epsilon": 1.0, **rate, **beside}, certificate, RunDir(tmp_path))
    printed = capsys.readouterr().out
    assert "90.0 % (1 seed)" in printed
    assert [row for row in printed.splitlines() if row.startswith("Balanced")] == ([line] if line else [])


def test_the_risk_is_one_line(tmp_path, capsys):
    (tmp_path / "release").mkdir()
    found = risk([Spend("pe.votes", Gaussian(2.0))], 1e-5)
    certificate = {"private": True, "delta": 1e-5, "unit": "image", "risk": found}
    print_report(typed(), {"privacy/epsilon": 1.0}, certificate, RunDir(tmp_path))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Risk")]
    assert told == [
        "Risk for one image, at most: found at 0.1 / 1 / 10 % false positives: 0.5 % / 3.4 % / 21.8 %; advantage 19.8 %; "
        "belief 50 % → 91.4 %, 10 % → 54.1 % (from pld)."
    ]
