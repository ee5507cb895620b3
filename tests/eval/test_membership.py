"""Membership inference: what it says of samples that are the private images, and of samples that never saw them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data.samples import SampleSet
from eval.evaluator import Reference
from eval.membership import Membership, auc, equally_many, true_positives
from tests.eval.world import PIXELS, context

RNG = np.random.default_rng(0)


def noise(seed: int, count: int) -> SampleSet:
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1)).astype(np.uint8)
    return SampleSet(images, np.zeros(count, np.int64), 1)


def attack(samples: SampleSet, tmp_path, **settings) -> dict[str, float]:
    judged = context(tmp_path, samples, noise(1, 400), noise(2, 150), **settings)
    return dict(Membership(embedding=PIXELS).evaluate(judged))


def test_samples_that_are_the_private_images_give_them_all_away(tmp_path):
    found = attack(noise(1, 400), tmp_path)
    assert found["membership/auc"] > 0.999
    assert found["membership/auc_low"] > 0.99
    assert found["membership/tpr_at_fpr_1pct"] == 1


def test_samples_that_never_saw_them_are_at_chance(tmp_path):
    found = attack(noise(3, 400), tmp_path)
    assert found["membership/auc_low"] < 0.5 < found["membership/auc_high"]
    assert found["membership/tpr_at_fpr_1pct"] < 0.1


def test_members_are_what_the_method_was_given_and_not_all_of_the_training_split(tmp_path):
    judged = context(tmp_path, noise(3, 1), noise(1, 400), noise(2, 150), fraction=0.25)
    given = judged.real(Reference.private)
    assert len(given) == 100
    judged.judged = given
    assert dict(Membership(embedding=PIXELS).evaluate(judged))["membership/auc"] == 1
    rest = np.array([not (image == given.images).all((1, 2, 3)).any() for image in judged.train.images])
    judged = context(tmp_path, judged.train[rest], noise(1, 400), noise(2, 150), fraction=0.25)
    assert dict(Membership(embedding=PIXELS).evaluate(judged))["membership/auc_low"] < 0.5


@pytest.mark.parametrize("levels", [5, 10_000], ids=["ties", "no ties"])
def test_the_area_is_scikit_learn_s(levels):
    members, others = RNG.integers(levels, size=70) + 1.0, RNG.integers(levels, size=50).astype(float)
    truth = np.repeat([1, 0], [70, 50])
    assert auc(members, others)[0] == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])))


def test_the_variance_is_de_long_s_as_it_is_defined():
    members, others = RNG.integers(12, size=30) + 2.0, RNG.integers(12, size=20).astype(float)
    wins = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    variance = wins.mean(1).var(ddof=1) / 30 + wins.mean(0).var(ddof=1) / 20
    area, low, high = auc(members, others)
    assert (high - low) / 2 == pytest.approx(1.96 * variance**0.5, rel=1e-4)
    assert (high + low) / 2 == pytest.approx(area)


def test_the_interval_covers_the_true_area_in_about_95_of_100_draws():
    """Normal scores with means 1 apart: the area is Phi(1 / √2)."""
    rng, truth, covered = np.random.default_rng(0), 0.76025, 0
    for _ in range(1000):
        _, low, high = auc(rng.normal(1, 1, 100), rng.normal(0, 1, 100))
        covered += low < truth < high
    assert 0.925 < covered / 1000 < 0.965  # standard error: 0.007


def test_no_more_of_the_others_than_allowed_are_above_the_threshold():
    others = np.arange(200.0)  # at 1 %, two may be: the threshold is 197
    assert true_positives(np.array([197.0, 197.5, 300.0, 0.0]), others, 0.01) == 0.5
    assert true_positives(others, others, 0.01) == pytest.approx(0.01)
    assert true_positives(np.full(10, 5.0), np.full(50, 5.0), 0.01) == 0  # ties are no success


def test_both_sides_are_drawn_equally_large_and_the_same_again_by_the_same_seed():
    a, b = np.arange(50.0), np.arange(100.0, 120.0)
    first, second = equally_many(a, b, seed=3)
    assert len(first) == len(second) == 20
    assert set(first) <= set(a)
    assert set(second) == set(b)
    assert np.array_equal(equally_many(a, b, seed=3)[0], first)
    assert not np.array_equal(equally_many(a, b, seed=4)[0], first)
