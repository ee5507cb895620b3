"""What is kept of a round: enough for its pictures, little, and the same bytes for the same round."""

from __future__ import annotations

import numpy as np
import pytest

from data.rounds import LARGEST_SIDE, SAMPLED_BYTES, SHOWN, first, keep_round, kept_rounds, voted
from data.samples import SampleSet

LABELS = np.tile(np.arange(3), 40)
VOTES = np.random.default_rng(0).permutation(120).astype(float)


def population(side: int = 4) -> SampleSet:
    """Image i is grey level i."""
    images = np.broadcast_to(np.arange(120, dtype=np.uint8)[:, None, None, None], (120, side, side, 1)).copy()
    return SampleSet(images, LABELS, 3)


def test_the_first_the_most_and_the_least_voted_of_each_class_can_be_shown(tmp_path):
    keep_round(tmp_path, 0, population(), VOTES)
    (kept,) = kept_rounds(tmp_path)
    assert np.array_equal(kept.noisy_votes, VOTES)
    for rows in [*first(LABELS), *voted(LABELS, VOTES, True), *voted(LABELS, VOTES, False)]:
        assert len(rows) == SHOWN
        assert np.array_equal(kept.images(rows)[:, 0, 0, 0], rows)


def test_votes_are_in_order_within_each_class_and_of_equal_ones_the_first_comes_first():
    for label, (most, fewest) in enumerate(zip(voted(LABELS, VOTES, True), voted(LABELS, VOTES, False), strict=True)):
        mine = np.sort(VOTES[label == LABELS])
        assert VOTES[most].tolist() == mine[::-1][:SHOWN].tolist()
        assert VOTES[fewest].tolist() == mine[:SHOWN].tolist()
    tied = voted(LABELS, np.zeros(120), True)
    assert [rows.tolist() for rows in tied] == [rows.tolist() for rows in first(LABELS)]


def test_rounds_come_back_in_order_and_the_last_has_no_votes(tmp_path):
    for t in range(12):
        keep_round(tmp_path, t, population(), VOTES + t if t < 11 else None)
    kept = list(kept_rounds(tmp_path))
    assert [one.index for one in kept] == list(range(12))
    assert [one.votes is None for one in kept] == [False] * 11 + [True]
    assert kept[3].noisy_votes[0] == VOTES[0] + 3


def test_the_same_round_has_the_same_bytes(tmp_path):
    written = []
    for _ in range(2):
        keep_round(tmp_path, 0, population(), VOTES)
        written.append((tmp_path / "rounds" / "000.npz").read_bytes())
    assert written[0] == written[1]


def test_the_sample_is_of_the_whole_population_at_full_size_and_no_larger_than_it_may_be(tmp_path):
    side = 1600
    keep_round(tmp_path, 0, population(), None)
    keep_round(tmp_path, 1, population(side), None)
    small, large = (one.sample for one in kept_rounds(tmp_path))
    assert small is not None
    assert large is not None
    assert small[:, 0, 0, 0].tolist() == list(range(120))
    assert large.shape == (SAMPLED_BYTES // side**2, side, side, 1)
    assert large[:, 0, 0, 0].tolist() == pytest.approx(np.linspace(0, 119, len(large)), abs=0.5)


@pytest.mark.parametrize("side", [4, LARGEST_SIDE, 300])
def test_large_images_are_kept_small(tmp_path, side):
    keep_round(tmp_path, 0, population(side), None)
    (kept,) = kept_rounds(tmp_path)
    assert kept.images(np.array([0, 1])).shape == (2, min(side, LARGEST_SIDE), min(side, LARGEST_SIDE), 1)
