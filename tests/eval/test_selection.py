"""Choosing a classifier on private images: only for a price, which is in the plan, the ledger and the certificate."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import eval.downstream
from data.samples import SampleSet
from eval.downstream import Downstream
from eval.evaluator import EvaluationContext
from models.classifiers.networks import ClassifierName
from privacy.accounting import Accountant, compose_epsilon
from privacy.mechanisms import DiscreteGaussian, Selection, Spend
from privacy.noise import NoiseSource
from tests.command import call, ledger, output_of, parts_of, released
from tests.rejects import assert_refused

CHOOSE = ["+experiment=smoke", "eval.downstream.steps=2", "eval.downstream.choose_from=[0.1,0.001]"]
CHOOSE += ["eval.downstream.classifier=cnn", "eval.frechet.enabled=false", "device=cpu"]
CHOOSE += ["privacy.epsilon=null", "privacy.noise_multiplier=20"]


def test_a_choice_on_private_images_is_spent_for_and_told(here):
    result = call(*CHOOSE, "privacy.selection_epsilon=0.5")
    folder = released(result, here)
    document = json.loads((folder / "privacy.json").read_text())
    assert ledger(here / "run")[-1] == "selection"
    spent = [Spend("pe.votes", DiscreteGaussian(20.0), 2), Spend("selection", Selection(0.5))]
    assert document["epsilon"] == pytest.approx(compose_epsilon(spent, document["delta"]), rel=1e-9)
    assert document["epsilon"] > compose_epsilon(spent[:1], document["delta"])
    assert document["selected"]["learning_rate"] in (0.1, 0.001)
    metrics = json.loads((here / "run" / "internal" / "metrics.json").read_text())
    assert "cnn/accuracy" in metrics
    assert parts_of(here / "run")["selection"] > 0
    assert "cnn/chosen_learning_rate" not in metrics  # nothing is left to choose


def test_without_a_price_the_private_images_choose_nothing(here):
    folder = released(call(*CHOOSE), here)
    assert "selected" not in json.loads((folder / "privacy.json").read_text())
    assert "selection" not in ledger(here / "run")
    assert output_of(here / "run") == folder


def test_a_price_for_no_choice_is_refused(here):
    result = call("privacy.selection_epsilon=0.5")
    assert_refused(result, "privacy.selection_epsilon=0.5", "eval.downstream.choose_from")


def test_a_choice_dearer_than_the_budget_is_refused(here):
    result = call(*CHOOSE[:-2], "privacy.epsilon=1", "privacy.selection_epsilon=2", "privacy.accountant=rdp")
    assert_refused(result, "privacy.epsilon=1.0", "selection")


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_alone_it_costs_its_epsilon(epsilon):
    spent = compose_epsilon([Spend("selection", Selection(epsilon))], 1e-9)
    assert spent == pytest.approx(epsilon, rel=1e-3)
    assert compose_epsilon([Spend("selection", Selection(epsilon))], 1e-9, Accountant.rdp) <= 1.001 * epsilon


def test_permute_and_flip_takes_candidates_with_its_probabilities():
    """Two candidates: the better one always flips heads, so it loses only where it comes second and the other flips heads."""
    epsilon, gap, draws = 1.0, 2, 4000
    taken = Counter(NoiseSource(bytes(32)).stream(str(i)).permute_and_flip([5, 5 - gap], epsilon) for i in range(draws))
    expected = math.exp(-epsilon * gap / 2) / 2
    assert taken[1] / draws == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws))


class Level(torch.nn.Module):
    """Answers with the class of an image's grey level, or always with class 0."""

    def __init__(self, knows: bool):
        super().__init__()
        self.knows = knows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = x.mean((1, 2, 3))[:, None] if self.knows else -torch.ones(len(x), 1)
        return -(level - torch.linspace(-1, 1, 3)).abs()


def test_candidates_are_scored_by_the_private_images_that_they_have_right(monkeypatch):
    scored: list[list[int]] = []

    class Noise:
        def permute_and_flip(self, counts, epsilon):
            scored.append(counts)
            return int(np.argmax(counts))

    monkeypatch.setattr(eval.downstream, "train", lambda samples, recipe, **_: Level(recipe.learning_rate == 0.5))
    labels = np.arange(700) % 3
    grey = np.array([0, 127, 255], np.uint8)[labels][:, None, None, None]
    private = SampleSet(np.broadcast_to(grey, (700, 8, 8, 1)).copy(), labels, 3)
    context = EvaluationContext(private[slice(0, 9)], None, None, torch.device("cpu"), 0, Path())  # type: ignore[arg-type]
    downstream = Downstream(classifier=ClassifierName.cnn, choose_from=[0.1, 0.5])
    assert downstream.select(context, private, Noise(), 1.0) == {"learning_rate": 0.5, "steps": 200}  # type: ignore[arg-type]
    assert scored == [[int((labels == 0).sum()), 700]]
    downstream.select(context, private[slice(1, 700)], Noise(), 1.0)  # type: ignore[arg-type]
    assert np.abs(np.array(scored[1]) - scored[0]).max() == 1  # one image moves no count by more


def test_neighbouring_scores_are_chosen_alike():
    """By exact enumeration of both orders, no ratio exceeds e^epsilon when one example moves every score by up to 1."""
    epsilon = 0.7

    def probabilities(a: int, b: int) -> tuple[float, float]:
        p, q = (math.exp(epsilon * (score - max(a, b)) / 2) for score in (a, b))
        first_a = p + (1 - p) * q  # some coin must come up heads: the better one's always does
        assert first_a == pytest.approx(1.0)
        return (p + (1 - q) * p) / 2, (q + (1 - p) * q) / 2

    for a, b in ((5, 5), (5, 3), (3, 5), (9, 0)):
        for more_a, more_b in ((1, 0), (0, 1), (1, 1)):
            for before, after in zip(probabilities(a, b), probabilities(a + more_a, b + more_b), strict=True):
                assert abs(math.log(after / before)) <= epsilon + 1e-12
