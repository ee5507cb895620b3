"""The second implementation: closed forms and published numbers lie between its bounds, which are near each other."""

from __future__ import annotations

import pytest

from audit.losses import epsilon_bounds
from privacy.accounting import compose_epsilon
from privacy.gaussian import gaussian_epsilon
from privacy.mechanisms import (
    DeclaredPublic,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    SampledGaussian,
    Selection,
    Spend,
)
from tests.facts import FACTS


def between(spends: list[Spend], delta: float, epsilon: float, exact: float = 5e-3) -> None:
    bounds = epsilon_bounds(spends, delta)
    assert bounds is not None
    assert bounds[0] <= epsilon <= bounds[1]
    assert bounds[1] - bounds[0] <= exact * max(1, epsilon)


@pytest.mark.parametrize(("sigma", "rounds", "delta"), [(2.0, 13, 1e-3), (0.6, 1, 1e-5), (30.0, 4, 1e-6), (5.0, 100, 1e-9)])
def test_gaussian_rounds_have_their_closed_form(sigma, rounds, delta):
    between([Spend("votes", Gaussian(sigma), rounds)], delta, gaussian_epsilon(sigma, delta, rounds))


def test_dp_sgd_costs_what_the_authors_of_prv_compute():
    fact = FACTS["dpd.mnist.as_stated"]
    inputs = fact["inputs"]
    spends = [Spend("dp_sgd", SampledGaussian(inputs["sigma"], inputs.get("q") or inputs["batch"] / inputs["N"]), inputs["T"])]
    between(spends, inputs["delta"], fact["computed_value"]["ms_prv_estimate"], exact=2e-2)


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
def test_sampling_costs_what_the_first_implementation_says(rate):
    spends = [Spend("dp_sgd", SampledGaussian(1.0, rate), 20)]
    between(spends, 1e-5, compose_epsilon(spends, 1e-5))


def test_unlike_mechanisms_compose_to_what_the_first_implementation_says():
    spends = [
        Spend("class_counts", DiscreteLaplace(0.1)),
        Spend("moments", Gaussian(3.0)),
        Spend("votes", DiscreteGaussian(0.7), 2),
        Spend("selection", Selection(0.4)),
        Spend("facts", DeclaredPublic()),
    ]
    between(spends, 1e-5, compose_epsilon(spends, 1e-5))


def test_what_it_cannot_tell_it_does_not():
    assert epsilon_bounds([Spend("votes", Gaussian(2.0))], 1e-12) is None
    assert epsilon_bounds([Spend("votes", Gaussian(0.01))], 1e-5) is None
    assert epsilon_bounds([Spend("facts", DeclaredPublic())], 1e-5) == (0, 0)
