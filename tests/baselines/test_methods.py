"""The floor, the ceiling, and how every method learns the sizes of its classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.methods import PublicOnly, RealData
from data.dataset import ClassCounts
from data.samples import SampleSet
from method import Method
from pe.evolution import PrivateEvolution
from pipeline.plan import Plan
from privacy.accounting import Accountant
from privacy.config import Privacy
from privacy.mechanisms import DeclaredPublic, DiscreteGaussian, DiscreteLaplace, NonPrivate, Spend
from tests.command import typed
from tests.rejects import rejects
from tests.toy import Toy, start, toy

CENTRES, SIZES = [(200, 60), (40, 200), (100, 100)], [600, 300, 100]
LAPLACE = Privacy(noise_multiplier=2.0, class_counts_epsilon=0.5)


def skewed(class_counts: ClassCounts) -> Toy:
    return toy(CENTRES, SIZES, class_counts=class_counts)


def evolution(**settings: Any) -> PrivateEvolution:
    defaults: dict[str, Any] = {"num_samples": 60, "iterations": 2, "lookahead": 0, "threshold": 0, "variation_degrees": [5, 4]}
    return PrivateEvolution(**{**defaults, **settings})


METHODS = pytest.mark.parametrize("method", [evolution(), PublicOnly(num_samples=60)], ids=["pe", "public_only"])


def run(method: Method, dataset: Toy, folder: Path, privacy: Privacy) -> tuple[list[int], list[dict[str, Any]]]:
    """Sizes of the classes in the release, and the ledger on disk."""
    one = start(method, dataset, folder, 2.0, privacy)
    samples = method.run(one.private, one.model, one.run)
    assert isinstance(samples, SampleSet)
    ledger = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    assert one.ledger.spends == method.spends(2.0, dataset, privacy)  # exactly what the plan said
    return np.bincount(samples.labels).tolist(), [line for line in lines if line["purpose"] == "class_counts"]


# Sizes of classes


@METHODS
def test_uniform_classes_are_equal_and_nothing_is_read(tmp_path, method):
    sizes, entries = run(method, skewed(ClassCounts.uniform), tmp_path, Privacy(noise_multiplier=2.0))
    assert sizes == [20, 20, 20]
    assert entries == []


@METHODS
def test_public_counts_are_followed_and_declared(tmp_path, method):
    sizes, entries = run(method, skewed(ClassCounts.public), tmp_path, Privacy(noise_multiplier=2.0))
    assert sum(sizes) == 60
    assert sizes == pytest.approx([36, 18, 6], abs=1)
    assert entries == [{"purpose": "class_counts", "mechanism": "declared_public"}]


@METHODS
def test_laplace_counts_are_followed_up_to_noise_and_spent_for(tmp_path, method):
    sizes, entries = run(method, skewed(ClassCounts.laplace), tmp_path, LAPLACE)
    assert sum(sizes) == 60
    assert sizes == pytest.approx([36, 18, 6], abs=3)
    assert entries == [{"purpose": "class_counts", "mechanism": "discrete_laplace", "epsilon": 0.5}]


def test_laplace_noise_is_drawn_for_counts(tmp_path):
    """At epsilon 1e-3 the noise has a deviation of about 1,400 counts: the exact sizes do not come through."""
    privacy = Privacy(noise_multiplier=2.0, class_counts_epsilon=1e-3)
    sizes, _ = run(PublicOnly(num_samples=600), skewed(ClassCounts.laplace), tmp_path, privacy)
    exact, _ = run(PublicOnly(num_samples=600), skewed(ClassCounts.public), tmp_path / "..", privacy)
    assert sum(sizes) == 600
    assert min(sizes) >= 1
    assert np.abs(np.subtract(sizes, exact)).max() > 20


@METHODS
@pytest.mark.parametrize("counts", list(ClassCounts))
def test_without_classes_no_count_is_read(tmp_path, method, counts):
    method = type(method)(**{**vars(method), "conditional": False})
    sizes, entries = run(method, skewed(counts), tmp_path, LAPLACE)
    assert sizes == [60]
    assert entries == []


def test_class_counts_add_to_what_votes_cost():
    dataset, votes = skewed(ClassCounts.laplace), Spend("pe.votes", DiscreteGaussian(2.0), 2)
    plan = Plan.make(evolution(), dataset, LAPLACE)
    assert plan.spends == [Spend("class_counts", DiscreteLaplace(0.5)), votes]
    assert plan.epsilon > Plan.make(evolution(), skewed(ClassCounts.uniform), LAPLACE).epsilon


def test_a_target_epsilon_holds_with_class_counts_in_it():
    dataset, alone = skewed(ClassCounts.laplace), skewed(ClassCounts.public)
    privacy = Privacy(epsilon=2.0, class_counts_epsilon=0.5, accountant=Accountant.rdp)
    with_counts, without = (Plan.make(evolution(), each, privacy) for each in (dataset, alone))
    assert 1.99 < with_counts.epsilon <= 2.0
    assert with_counts.noise_multiplier is not None
    assert without.noise_multiplier is not None
    assert with_counts.noise_multiplier > without.noise_multiplier


@METHODS
def test_a_target_epsilon_that_class_counts_alone_exceed_is_refused(method):
    privacy = Privacy(epsilon=1.0, class_counts_epsilon=5.0, accountant=Accountant.rdp)
    with rejects("privacy.epsilon", 1.0):
        Plan.make(method, skewed(ClassCounts.laplace), privacy)


@METHODS
def test_an_accountant_without_a_curve_for_the_counts_is_refused(method):
    privacy = Privacy(noise_multiplier=2.0, class_counts_epsilon=0.5, accountant=Accountant.prv)
    with rejects("privacy.accountant", "prv"):
        Plan.make(method, skewed(ClassCounts.laplace), privacy)


# The floor


def test_public_only_costs_nothing_and_reads_no_private_image(tmp_path):
    method, dataset = PublicOnly(num_samples=60), skewed(ClassCounts.uniform)
    one = start(method, dataset, tmp_path)
    one.private._load = lambda: pytest.fail("a private image was opened")
    samples = method.run(one.private, one.model, one.run)
    assert one.ledger.epsilon == Plan.make(method, dataset, Privacy(epsilon=1.0)).epsilon == 0
    assert not (tmp_path / "ledger.jsonl").exists()
    assert np.array_equal(one.api.calls[0]["labels"], samples.labels)  # public label = class of the same number


def test_public_only_needs_no_noise_and_announces_its_calls():
    method, model = PublicOnly(num_samples=60), typed("method=public_only", "model.respacing='7'").model
    assert Plan.make(method, skewed(ClassCounts.uniform), Privacy(epsilon=1.0)).noise_multiplier is None
    assert method.work(skewed(ClassCounts.uniform), model) == {"steps": 0, "network_calls": 420}


# The ceiling


def test_real_data_are_the_private_images_at_infinite_epsilon(tmp_path):
    method, dataset = RealData(), skewed(ClassCounts.uniform)
    one = start(method, dataset, tmp_path)
    samples = method.run(one.private, one.model, one.run)
    assert np.array_equal(samples.images, dataset.private().images)
    assert np.array_equal(samples.labels, dataset.private().labels)
    assert one.ledger.spends == [Spend("real_data", NonPrivate())]
    assert one.ledger.epsilon == Plan.make(method, dataset, Privacy(epsilon=1.0)).epsilon == math.inf
    assert one.ledger.holds_private_data


def test_only_the_real_data_are_withheld(tmp_path):
    for method, dataset in [(evolution(), skewed(ClassCounts.laplace)), (PublicOnly(num_samples=60), skewed(ClassCounts.public))]:
        folder = tmp_path / method.name
        folder.mkdir()
        one = start(method, dataset, folder, 2.0, LAPLACE)
        method.run(one.private, one.model, one.run)
        assert not one.ledger.holds_private_data
    assert Spend("class_counts", DeclaredPublic()) in one.ledger.spends
