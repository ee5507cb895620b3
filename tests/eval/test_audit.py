"""Lower bounds on epsilon: printed values, mechanisms whose epsilon is known, other implementations."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom, binomtest

from audit.statistics import game, game_epsilon, one_run, one_run_epsilon, one_run_p_value
from privacy.gaussian import gaussian_epsilon

M = 100


@functools.cache
def bounds(delta: float) -> np.ndarray:
    """At 95 %, for v = 0 … M right guesses of M."""
    return np.array([one_run_epsilon(M, M, v, delta, 0.95) for v in range(M + 1)])


def error_rate(right: np.ndarray, epsilon: float, delta: float) -> float:
    """How often the bound exceeds `epsilon`, where `right[v]` is the probability that v of M guesses are right."""
    return float(right[bounds(delta) > epsilon].sum())


# One run


@pytest.mark.parametrize("correct", [0, 40, 60, 61, 100])
def test_without_delta_the_p_value_is_that_of_randomised_response(correct):
    other = binomtest(correct, M, expit(0.4), alternative="greater").pvalue if correct else 1.0
    assert one_run_p_value(500, M, correct, 0.4, 0.0) == pytest.approx(other)


@pytest.mark.parametrize(("m", "r", "v", "epsilon", "delta"), [(500, 100, 80, 1.0, 1e-4), (100, 100, 100, 3.0, 1e-3)])
def test_delta_adds_what_the_theorem_says(m, r, v, epsilon, delta):
    """Steinke et al. (2023), Thm. 5.2, term by term."""
    law = [math.comb(r, k) * expit(epsilon) ** k * (1 - expit(epsilon)) ** (r - k) for k in range(r + 1)]
    alpha = max(sum(law[v - i : v]) / i for i in range(1, v + 1))
    assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(sum(law[v:]) + 2 * m * delta * alpha)


@pytest.mark.parametrize("r", [10, 100])
def test_all_right_without_delta_is_the_root_of_the_error(r):
    q = 0.05 ** (1 / r)
    assert one_run_epsilon(1000, r, r, 0.0, 0.95) == pytest.approx(math.log(q / (1 - q)))


def test_the_bound_grows_with_what_is_right_and_falls_with_delta_canaries_and_confidence():
    base = one_run_epsilon(500, 100, 80, 1e-4, 0.95)
    assert 0 < base < one_run_epsilon(500, 100, 85, 1e-4, 0.95)
    assert base > one_run_epsilon(500, 100, 80, 1e-3, 0.95)
    assert base > one_run_epsilon(2000, 100, 80, 1e-4, 0.95)
    assert base > one_run_epsilon(500, 100, 80, 1e-4, 0.99)
    assert one_run_epsilon(500, 100, 50, 0.0, 0.95) == 0


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomised_response_is_overestimated_as_seldom_as_stated_and_no_seldomer(epsilon):
    rate = error_rate(binom.pmf(np.arange(M + 1), M, expit(epsilon)), epsilon, 0.0)
    assert 0.01 < rate <= 0.05


@pytest.mark.parametrize("delta", [1e-3, 0.03])
def test_mechanisms_that_fail_with_probability_delta_are_overestimated_as_seldom_as_stated(delta):
    epsilon, counts = 1.0, np.arange(M + 1)
    each = binom.pmf(counts, M, delta + (1 - delta) * expit(epsilon))  # each example is shown with probability delta
    together = (1 - delta) * binom.pmf(counts, M, expit(epsilon)) + delta * (counts == M)  # all examples are, or none
    for law in (each, together):
        assert error_rate(law, epsilon, delta) <= 0.05
        assert delta < 0.03 or error_rate(law, epsilon, 0.0) > 0.05  # for want of the theorem's delta


@pytest.mark.parametrize(("mu", "found"), [(0.0, 0.0), (1.0, 1.0), (2.0, 2.5)])
def test_gaussian_noise_of_known_epsilon_is_bounded_by_it_with_much_of_it_found(mu, found):
    rng, found_bounds = np.random.default_rng(0), []
    claimed = gaussian_epsilon(1 / mu, 1e-5) if mu else 0.0
    for _ in range(20):
        included = rng.random(1000) < 0.5
        found_bounds.append(one_run(mu * included + rng.normal(size=1000), included, 1e-5, 0.95).lower_bound)
    assert np.mean(np.array(found_bounds) > claimed) <= 0.1
    assert np.median(found_bounds) >= found


def test_the_extremes_are_guessed_and_the_middle_is_not():
    scores, included = np.arange(64.0), np.arange(64) >= 32
    finding = one_run(scores, included, 0.0, 0.95)
    assert (finding.guesses, finding.correct) == (32, 32)
    assert finding.lower_bound == finding.largest == pytest.approx(one_run_epsilon(64, 32, 32, 0.0, 1 - 0.05 / 3))
    wrong = one_run(-scores, included, 0.0, 0.95)
    assert (wrong.lower_bound, wrong.correct) == (0.0, 0)


# A game of many runs


@pytest.mark.parametrize(("hits", "alarms"), [(0, 0), (80, 3), (100, 0), (100, 100), (50, 50)])
def test_rates_are_taken_at_the_worse_end_of_their_exact_intervals(hits, alarms):
    tpr = binomtest(hits, 100, alternative="greater").proportion_ci(0.975, method="exact").low
    fpr = binomtest(alarms, 100, alternative="less").proportion_ci(0.975, method="exact").high
    expected = max(0.0, *(math.log(x / y) for x, y in ((tpr - 0.01, fpr), (1 - fpr - 0.01, 1 - tpr)) if x > 0 and y > 0))
    assert game_epsilon(hits, 100, alarms, 100, 0.01, 0.95) == pytest.approx(expected)


def test_the_game_is_the_same_with_the_worlds_exchanged():
    for hits, alarms in ((90, 5), (20, 1), (99, 70)):
        exchanged = game_epsilon(100 - alarms, 100, 100 - hits, 100, 1e-3, 0.95)
        assert game_epsilon(hits, 100, alarms, 100, 1e-3, 0.95) == pytest.approx(exchanged)


def test_randomised_response_is_overestimated_in_a_game_as_seldom_as_stated():
    """Exactly, over all outcomes of 60 runs in each world."""
    counts, n, epsilon = np.arange(61), 60, 1.0
    hits, alarms = np.meshgrid(counts, counts, indexing="ij")
    law = binom.pmf(hits, n, expit(epsilon)) * binom.pmf(alarms, n, expit(-epsilon))
    assert 0 < law[game_epsilon(hits, n, alarms, n, 0.0, 0.95) > epsilon].sum() <= 0.05


@pytest.mark.parametrize(("mu", "found"), [(0.0, 0.0), (1.0, 0.8), (2.0, 2.0)])
def test_runs_with_gaussian_scores_are_bounded_by_their_epsilon_with_much_of_it_found(mu, found):
    rng, found_bounds = np.random.default_rng(1), []
    claimed = gaussian_epsilon(1 / mu, 1e-5) if mu else 0.0
    for _ in range(20):
        found_bounds.append(game(rng.normal(mu, 1, 600), rng.normal(0, 1, 600), 1e-5, 0.95).lower_bound)
    assert np.mean(np.array(found_bounds) > claimed) <= 0.1
    assert np.median(found_bounds) >= found


def test_the_rates_are_those_of_the_guesses_that_were_made():
    included = np.arange(320) < 160
    scores = np.where(included, 1.0, 0.0)
    scores[:16], scores[160:164] = -1.0, 2.0  # sixteen that are in look out, and four that are out look in
    finding = one_run(scores, included, 1e-5, 0.95)
    half = finding.guesses // 2
    assert finding.false_positives == 4 / 160
    assert finding.true_positives == (half - 4) / 160
    finding = game(np.array([1.0] * 30 + [0.0] * 10), np.array([0.0] * 30 + [1.0] * 10), 0.0, 0.95)
    assert (finding.false_positives, finding.true_positives) == (0.25, 0.75)


def test_runs_that_chose_the_threshold_are_not_judged_by_it():
    inside = np.where(np.arange(200) % 2 == 0, 1.0, 0.0)  # told apart in the first half of the runs alone
    finding = game(inside, np.zeros(200), 0.0, 0.95)
    assert (finding.guesses, finding.correct, finding.lower_bound) == (200, 100, 0.0)
