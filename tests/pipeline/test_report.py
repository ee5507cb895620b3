"""The table at the end of a run: which stored floor and ceiling may stand beside it."""

from __future__ import annotations

import pytest

from pipeline.report import evaluator_settings, load_references
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
