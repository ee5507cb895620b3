"""The Gaussian mechanism in closed form: golden numbers, round trips far into the tails, monotone everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from privacy.gaussian import gaussian_epsilon, gaussian_log_delta, gaussian_noise_multiplier
from tests.facts import FACTS, gaussian_rows

INVERSE = {name: fact for name, fact in FACTS.items() if name.startswith("pe.inverse.")}
DELTA = {name: fact for name, fact in FACTS.items() if name.startswith("gauss.delta.")}

epsilons = st.floats(math.log(0.01), math.log(100)).map(math.exp)
deltas = st.floats(math.log(1e-12), math.log(0.5)).map(math.exp)
multipliers = st.floats(math.log(0.05), math.log(1000)).map(math.exp)


@pytest.mark.parametrize(("row", "sigma", "rounds", "delta", "epsilon"), gaussian_rows(), ids=lambda value: str(value)[:40])
def test_epsilon_is_the_golden_one(row, sigma, rounds, delta, epsilon):
    assert gaussian_epsilon(sigma, delta, rounds) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("name", INVERSE)
def test_noise_multiplier_is_the_golden_one(name):
    inputs = INVERSE[name]["inputs"]
    sigma = gaussian_noise_multiplier(inputs["eps"], inputs["delta"], inputs["T"])
    assert sigma == pytest.approx(INVERSE[name]["computed_value"], abs=1e-6)


@pytest.mark.parametrize("name", DELTA)
def test_delta_is_the_golden_one(name):
    inputs = DELTA[name]["inputs"]
    delta = math.exp(gaussian_log_delta(inputs["eps"], inputs["mu"]))
    assert delta == pytest.approx(DELTA[name]["computed_value"], abs=DELTA[name]["tolerance"])


@pytest.mark.parametrize(("epsilon", "mu"), [(0.0, 0.3), (0.5, 0.5), (2.0, 1.0), (20.0, 4.0)])
def test_delta_is_the_hockey_stick_divergence_of_two_gaussians(epsilon, mu):
    edge = epsilon / mu + mu / 2  # where the densities cross
    expected = quad(lambda x: norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x), edge, edge + 40, epsabs=0, epsrel=1e-10)[0]
    assert math.exp(gaussian_log_delta(epsilon, mu)) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=150, deadline=None)
@given(epsilon=epsilons, delta=deltas, rounds=st.integers(1, 1000))
def test_noise_multiplier_and_epsilon_are_inverse(epsilon, delta, rounds):
    sigma = gaussian_noise_multiplier(epsilon, delta, rounds)
    assert gaussian_epsilon(sigma, delta, rounds) == pytest.approx(epsilon, rel=1e-8)


@settings(max_examples=100, deadline=None)
@given(sigma=multipliers, delta=deltas)
def test_epsilon_falls_with_noise_and_delta_and_grows_with_rounds(sigma, delta):
    epsilon = gaussian_epsilon(sigma, delta)
    slack = 1e-9 * (1 + epsilon)
    assert 0 <= epsilon < math.inf
    assert gaussian_epsilon(1.1 * sigma, delta) <= epsilon + slack
    assert gaussian_epsilon(sigma, 1.1 * delta) <= epsilon + slack
    assert gaussian_epsilon(sigma, delta, rounds=2) >= epsilon - slack


@settings(max_examples=100, deadline=None)
@given(sigma=multipliers, delta=deltas, rounds=st.integers(1, 100))
def test_rounds_are_one_round_with_less_noise(sigma, delta, rounds):
    assert gaussian_epsilon(sigma, delta, rounds) == pytest.approx(gaussian_epsilon(sigma / math.sqrt(rounds), delta), rel=1e-9)


@pytest.mark.parametrize("delta", [1e-12, 1e-50, 1e-300])
@pytest.mark.parametrize("epsilon", np.geomspace(0.01, 100, 5))
def test_tails_beyond_float_precision_are_still_inverse(epsilon, delta):
    assert gaussian_epsilon(gaussian_noise_multiplier(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-8)


def test_enough_noise_costs_no_epsilon():
    assert gaussian_epsilon(1e6, 1e-3) == 0.0
