"""The vote histogram: sensitivity 1, the stated noise, the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.neighbours import NeighbourBackend
from pe.histogram import VoteNoise, count_votes, noisy_votes, threshold_votes
from privacy.mechanisms import DiscreteGaussian, Gaussian
from privacy.noise import NoiseSource

backends = pytest.mark.parametrize("backend", list(NeighbourBackend))


@st.composite
def elections(draw):
    """Private and generated embeddings with labels; a class may have no point, or no private image."""
    classes = draw(st.integers(1, 4))
    seed, voters, points = draw(st.integers(0, 10**6)), draw(st.integers(1, 30)), draw(st.integers(1, 12))
    rng = np.random.default_rng(seed)
    place = [rng.integers(-4, 5, (n, 2)).astype(np.float32) for n in (voters, points)]
    labels = [rng.integers(0, classes, n) for n in (voters, points)]
    return place[0], labels[0], place[1], labels[1]


@backends
@settings(max_examples=60, deadline=None)
@given(election=elections(), data=st.data())
def test_removing_or_adding_an_image_moves_one_bin_by_one(backend, election, data):
    private, private_labels, points, labels = election
    gone = data.draw(st.integers(0, len(private) - 1))
    rest = np.arange(len(private)) != gone
    change = count_votes(private, private_labels, points, labels, backend)
    change -= count_votes(private[rest], private_labels[rest], points, labels, backend)
    votes_at_all = private_labels[gone] in labels  # an image of a class without points votes for nothing
    assert sorted(change[change != 0]) == ([1] if votes_at_all else [])
    assert all(labels[change != 0] == private_labels[gone])


@settings(max_examples=50, deadline=None)
@given(election=elections(), data=st.data())
def test_an_embedding_that_is_not_finite_votes_for_nothing_and_moves_no_other_vote(election, data):
    """As if the image were not there: the run goes on, and its contribution stays within the sensitivity."""
    private, private_labels, points, labels = election
    harmed, lost = (data.draw(st.integers(0, len(side) - 1)) for side in (private, points))
    harm = data.draw(st.sampled_from([np.nan, np.inf, 3e38]))
    private, points, rest, stands = (
        private.copy(),
        points.copy(),
        np.arange(len(private)) != harmed,
        np.arange(len(points)) != lost,
    )
    private[harmed], points[lost] = harm, harm
    for backend in NeighbourBackend:
        votes = count_votes(private, private_labels, points, labels, backend)
        assert votes[lost] == 0
        assert np.array_equal(
            votes[stands], count_votes(private[rest], private_labels[rest], points[stands], labels[stands], backend)
        )


@settings(max_examples=50, deadline=None)
@given(election=elections())
def test_each_class_gets_as_many_votes_as_it_has_images(election):
    private, private_labels, points, labels = election
    votes = count_votes(private, private_labels, points, labels, NeighbourBackend.torch)
    assert votes.dtype == np.int64
    assert votes.shape == (len(points),)
    for label in np.unique(labels):
        assert votes[labels == label].sum() == (private_labels == label).sum()


@settings(max_examples=50, deadline=None)
@given(election=elections())
def test_the_backends_count_the_same_votes(election):
    private, private_labels, points, labels = election
    by_torch, by_faiss = (count_votes(private, private_labels, points, labels, backend) for backend in NeighbourBackend)
    assert np.array_equal(by_torch, by_faiss)


@backends
def test_an_image_whose_embedding_is_not_finite_votes_for_nothing_and_stops_nothing(backend):
    private, points = np.array([[np.nan, 0], [np.inf, 0], [1, 1]], np.float32), np.eye(2, dtype=np.float32)
    votes = count_votes(private, np.zeros(3, np.int64), points, np.zeros(2, np.int64), backend)
    assert votes.sum() == 1
    assert votes.sum() == count_votes(private[2:], np.zeros(1, np.int64), points, np.zeros(2, np.int64), backend).sum()


@pytest.mark.parametrize("backend", list(NeighbourBackend))
def test_a_class_without_private_images_gets_no_vote(backend):
    points, labels = np.eye(2, dtype=np.float32), np.arange(2)
    votes = count_votes(points[:1], np.zeros(1, np.int64), points, labels, backend)
    assert votes.tolist() == [1, 0]


@pytest.mark.parametrize("backend", list(NeighbourBackend))
def test_no_vote_crosses_classes_even_where_another_class_is_nearer(backend):
    private, points = np.zeros((5, 2), np.float32), np.array([[0, 0], [9, 9], [0, 0]], np.float32)
    votes = count_votes(private, np.ones(5, np.int64), points, np.array([0, 1, 2]), backend)
    assert votes.tolist() == [0, 5, 0]


@pytest.mark.parametrize("noise", list(VoteNoise))
@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_noise_has_the_stated_variance_on_every_bin_and_no_bias(noise, sigma):
    votes = np.arange(4000)
    noisy = noisy_votes(votes, noise, sigma, NoiseSource(bytes(32)).stream("pe.votes/round=1"))
    error = noisy - votes
    assert noisy.dtype == np.float64
    assert abs(error.mean()) < 5 * sigma / np.sqrt(len(votes))
    assert np.var(error) == pytest.approx(sigma**2, rel=0.12)  # 5 standard errors
    assert abs(np.corrcoef(error[:-1], error[1:])[0, 1]) < 0.08


def test_discrete_noise_keeps_votes_whole_and_gaussian_noise_does_not():
    discrete, gaussian = (
        noisy_votes(np.zeros(200, np.int64), noise, 2.0, NoiseSource(bytes(32)).stream("votes"))
        for noise in (VoteNoise.discrete_gaussian, VoteNoise.gaussian)
    )
    assert np.array_equal(discrete, np.round(discrete))
    assert not np.array_equal(gaussian, np.round(gaussian))


def test_each_noise_is_accounted_as_what_it_is():
    assert VoteNoise.gaussian.mechanism(2.0) == Gaussian(2.0)
    assert VoteNoise.discrete_gaussian.mechanism(2.0) == DiscreteGaussian(2.0)


def test_rounds_draw_different_noise_and_the_same_round_the_same():
    zeros, kind = np.zeros(50, np.int64), VoteNoise.gaussian
    streams = [NoiseSource(bytes(32)).stream(f"pe.votes/round={name}") for name in (1, 1, 2)]
    first, again, second = (noisy_votes(zeros, kind, 1.0, stream) for stream in streams)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_the_threshold_is_taken_off_and_nothing_falls_below_zero():
    assert threshold_votes(np.array([-3.0, 0.0, 2.0, 2.5, 7.0]), 2.0).tolist() == [0, 0, 0, 0.5, 5]
    assert threshold_votes(np.array([-3.0, 4.0]), 0.0).tolist() == [0, 4]
