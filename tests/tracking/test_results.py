"""Which of a run's numbers stand for it."""

from __future__ import annotations

import pytest

from tracking.results import accuracy, counted, distance, distance_name, mean_and_spread

METRICS = {
    "discriminator/accuracy": 0.98,
    "cnn/accuracy_spread": 0.1,
    "cnn/accuracy": 0.6,
    "cnn/ensemble_accuracy": 0.7,
    "cnn/balanced_accuracy": 0.5,
    "kernel/pixels_train": 1.0,
    "frechet/pixels_train": 30.0,
    "frechet/pixels_train_floor": 2.0,
}


def test_the_accuracy_is_of_a_classifier_trained_on_the_samples_not_of_the_discriminator():
    assert accuracy(METRICS) == 0.6
    assert accuracy(METRICS, "ensemble_accuracy") == 0.7
    assert accuracy(METRICS, "balanced_accuracy") == 0.5
    assert accuracy({"discriminator/accuracy": 0.98}) is None


def test_the_auc_is_of_a_classifier_not_of_a_membership_test():
    assert accuracy({"membership/auc": 0.5, "cnn/auc": 0.9}, "auc") == 0.9
    assert accuracy({"membership/auc": 0.5}, "auc") is None


def test_numbers_from_before_have_no_balanced_accuracy():
    before = {name: value for name, value in METRICS.items() if "balanced" not in name}
    assert (accuracy(before), accuracy(before, "balanced_accuracy")) == (0.6, None)


def test_the_distance_is_the_first_frechet_distance():
    assert (distance_name(METRICS), distance(METRICS)) == ("frechet/pixels_train", 30.0)
    assert distance({"fid/train": 9.8}) == 9.8
    assert distance({}) is None


def test_what_stands_beside_a_distance_is_not_it_in_whatever_order_they_are():
    beside = {"frechet/pixels_test_n": 60.0, "frechet/pixels_test_floor": 2.0, "frechet/pixels_test/class=cat": 5.0}
    assert distance_name({**beside, "fid/train": 9.0, "frechet/pixels_test": 4.0}) == "fid/train"
    assert distance_name(beside) is None


def test_a_mean_has_the_standard_deviation_of_a_sample_as_its_spread_where_there_are_several():
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_spread([3.0]) == (3.0, None)


@pytest.mark.parametrize(("seeds", "said"), [([0], "1 seed"), ([0, 1], "2 seeds"), ([0, 0], "2 runs"), ([None], "1 seed")])
def test_runs_are_counted_by_their_seeds(seeds, said):
    assert counted(seeds) == said
