"""What the best of a random number of runs costs: golden numbers, the exact law of a tiny mechanism, and a simulation of it."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from dp_accounting.dp_event import (
    ComposedDpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    RepeatAndSelectDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.rdp import RdpAccountant
from scipy.special import gamma as gamma_function

from audit.losses import epsilon_bounds
from privacy.accounting import Accountant, calibrate, compose_curve, compose_epsilon
from privacy.mechanisms import BestOf, DiscreteGaussian, DiscreteLaplace, Gaussian, SampledGaussian, Selection, Spend
from privacy.noise import NoiseSource
from privacy.risk import risk
from privacy.selection import Poisson, Runs, TruncatedNegativeBinomial
from tests.rejects import rejects

ORDERS = np.array([1 + x / 10 for x in range(1, 100)] + list(range(12, 64)), float)
DELTA = 1e-5
SEVERAL: list[Runs] = [
    *(TruncatedNegativeBinomial.of_mean(mean, eta) for mean in (1.5, 8) for eta in (-0.5, 0, 0.5, 1, 3)),
    *(Poisson(mean) for mean in (1, 8)),
]
several = pytest.mark.parametrize("runs", SEVERAL, ids=lambda runs: str(runs).replace("TruncatedNegativeBinomial", "TNB"))


def gaussian(sigma: float) -> np.ndarray:
    return ORDERS / (2 * sigma**2)


def best_of(runs: Runs, *candidates: list[Spend]) -> list[Spend]:
    return [Spend("best_of", BestOf(runs, tuple(map(tuple, candidates))))]


# The distributions


@several
def test_the_masses_are_a_distribution_with_its_mean_and_generating_function(runs):
    k, masses = map(np.array, zip(*itertools.islice(runs.masses(), 20_000), strict=True))
    assert masses.sum() == pytest.approx(1, abs=1e-9)
    assert k @ masses == pytest.approx(runs.mean, rel=1e-8)
    for z in (0.0, 0.3, 0.99, 1.0):
        assert runs.generating(z) == pytest.approx(masses @ z**k, abs=1e-9)
    assert k[0] == (0 if isinstance(runs, Poisson) else 1)


def test_the_masses_are_those_of_definition_1():
    eta, gamma = 0.5, 0.2
    found = dict(itertools.islice(TruncatedNegativeBinomial(eta, gamma).masses(), 6))
    for k, mass in found.items():
        product = math.prod((i + eta) / (i + 1) for i in range(k))
        assert mass == pytest.approx((1 - gamma) ** k / (gamma**-eta - 1) * product)
        assert product == pytest.approx(gamma_function(k + eta) / gamma_function(eta) / math.factorial(k))
    logarithmic = dict(itertools.islice(TruncatedNegativeBinomial(0, gamma).masses(), 6))
    assert logarithmic == pytest.approx({k: (1 - gamma) ** k / (k * math.log(1 / gamma)) for k in range(1, 7)})
    geometric = dict(itertools.islice(TruncatedNegativeBinomial(1, gamma).masses(), 6))
    assert geometric == pytest.approx({k: gamma * (1 - gamma) ** (k - 1) for k in range(1, 7)})


@several
def test_a_uniform_number_becomes_a_draw(runs):
    draws = [runs.quantile(level) for level in NoiseSource(bytes(32)).stream("draws").uniform(4_000)]
    for k, mass in itertools.islice(runs.masses(), 5):
        assert draws.count(k) / 4_000 == pytest.approx(mass, abs=4 * math.sqrt(mass / 4_000) + 1e-3)
    assert runs.quantile(1 - 2**-53) < 100_000  # it ends


@pytest.mark.parametrize(
    "values",
    [{"eta": -1.0, "gamma": 0.5}, {"eta": 1.0, "gamma": 1.0}, {"eta": math.inf, "gamma": 0.5}, {"eta": 0.0, "gamma": 0.0}],
)
def test_what_is_no_distribution_is_refused(values):
    with pytest.raises(ValueError, match="eta"):
        TruncatedNegativeBinomial(**values)
    with pytest.raises(ValueError, match="expected"):
        Poisson(0.5)


# The theorems


def test_theorem_2_by_hand():
    """Geometric, E[K] = 2, of N(0, 1): λ̂ = 1.2 is best, (1.2 - 1)/2 + log(2)/1.2; ε'(3) = 3/2 + 2 (0.677623) + log(2)/2."""
    found = TruncatedNegativeBinomial(1, 0.5).best(ORDERS, gaussian(1.0))
    assert found[list(ORDERS).index(3.0)] == pytest.approx(1.5 + 2 * (0.1 + 0.6931471806 / 1.2) + 0.3465735903, rel=1e-9)
    assert found[list(ORDERS).index(3.0)] == pytest.approx(3.2018189, abs=1e-6)


def test_theorem_6_by_hand():
    """Poisson(10), of N(0, 10^10): a total variation of sqrt(1 - e^(-1.1 / 2e10)) bounds δ̂; the last order is best of all."""
    found = Poisson(10).best(ORDERS, gaussian(1e5))
    assert found == pytest.approx(63 / 2e10 + 10 * 7.4161985e-6 + math.log(10) / 62, rel=1e-7)


@pytest.mark.parametrize("sigma", [0.7, 5.0])
@pytest.mark.parametrize(
    ("mean", "eta"), [(1.5, 0.0), (3, 0.5), (10, 1.0), (100, 3.0), (1, math.inf), (3, math.inf), (10, math.inf)]
)
def test_the_bounds_are_those_of_an_independent_implementation(mean, eta, sigma):
    runs = Poisson(mean) if math.isinf(eta) else TruncatedNegativeBinomial.of_mean(mean, eta)
    theirs = RdpAccountant(ORDERS)
    theirs.compose(RepeatAndSelectDpEvent(GaussianDpEvent(sigma), mean, eta))
    expected = np.minimum.accumulate(theirs._rdp[::-1])[
        ::-1
    ]  # a lower order costs no more, of which theirs makes no use for Poisson
    assert runs.best(ORDERS, gaussian(sigma)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("runs", "shape"), [(TruncatedNegativeBinomial(1, 1 / 6), 1.0), (Poisson(6), math.inf)], ids=["TNB", "Poisson"]
)
def test_an_epsilon_is_that_of_an_independent_implementation(runs, shape):
    sampled = SelfComposedDpEvent(PoissonSampledDpEvent(0.05, GaussianDpEvent(1.2)), 50)
    theirs = RdpAccountant(ORDERS)
    theirs.compose(RepeatAndSelectDpEvent(ComposedDpEvent([sampled, GaussianDpEvent(15.0)]), 6, shape))
    run = [Spend("dp_sgd", SampledGaussian(1.2, 0.05), 50), Spend("score", DiscreteGaussian(15.0))]
    epsilon, bound = compose_epsilon(best_of(runs, run), DELTA, Accountant.rdp), theirs.get_epsilon(DELTA)
    assert bound * (1 - 3e-4) < epsilon <= bound  # theirs interpolates between divergences of whole orders, from above


def test_a_worked_epsilon_stays():
    """Three rounds of votes and a score cost 4.0; the best of about six such runs 6.9, as dp-accounting has it too."""
    votes = [Spend("votes", DiscreteGaussian(2.0), 3), Spend("score", DiscreteGaussian(15.0))]
    assert compose_epsilon(votes, DELTA, Accountant.rdp) == pytest.approx(4.0249, abs=1e-4)
    assert compose_epsilon(best_of(TruncatedNegativeBinomial(1, 1 / 6), votes), DELTA, Accountant.rdp) == pytest.approx(
        6.8978, abs=1e-4
    )


# A tiny mechanism, whose law is known exactly


def law(runs: Runs, one: np.ndarray) -> np.ndarray:
    """Of the best of K outputs 0, 1, … of law `one`, the largest being best; first of all, of none."""
    below = np.array([runs.generating(min(1.0, part)) for part in np.concatenate([[0], np.cumsum(one)])])
    return np.concatenate([[below[0]], np.diff(below)])


def divergence(p: np.ndarray, q: np.ndarray, order: float) -> float:
    there = p > 0
    return math.log(np.sum(p[there] ** order * q[there] ** (1 - order))) / (order - 1)


def response(eps: float, truth: int) -> np.ndarray:
    """Randomised response on three values, scored by its output: what is most likely under the truth is best of all."""
    weights = np.where(np.arange(3) == truth, math.exp(eps), 1.0)
    return weights / weights.sum()


@several
@pytest.mark.parametrize("eps", [0.3, 1.5])
def test_the_exact_law_of_the_best_respects_the_bound_at_every_order(runs, eps):
    p, q = response(eps, 2), response(eps, 0)
    rdp = np.array([max(divergence(p, q, order), divergence(q, p, order)) for order in ORDERS])
    bound = runs.best(ORDERS, rdp)
    for one, other in ((p, q), (q, p)):
        best, beside = law(runs, one), law(runs, other)
        assert best.sum() == pytest.approx(1)
        assert all(divergence(best, beside, order) <= limit + 1e-12 for order, limit in zip(ORDERS, bound, strict=True))


def test_to_take_the_best_costs_something():
    """A rare success says more once many have tried."""
    runs, p, q = TruncatedNegativeBinomial(1, 0.1), np.array([0.9, 0.1]), np.array([0.95, 0.05])
    assert divergence(law(runs, p)[1:], law(runs, q)[1:], 2.0) > 2 * divergence(p, q, 2.0)


def test_a_mixture_of_candidates_costs_no_more_than_the_dearest():
    """One candidate says the truth more often: their mixture, drawn anew in each run, is bounded by the larger divergence."""
    runs = TruncatedNegativeBinomial(1, 0.2)
    (p, q), (p_2, q_2) = ((response(eps, 2), response(eps, 0)) for eps in (0.2, 1.2))
    rdp = np.max([[divergence(a, b, order) for order in ORDERS] for a, b in ((p, q), (p_2, q_2))], axis=0)
    found = [divergence(law(runs, (p + p_2) / 2), law(runs, (q + q_2) / 2), order) for order in ORDERS]
    assert (np.array(found) <= runs.best(ORDERS, rdp)).all()


@pytest.mark.parametrize("runs", [TruncatedNegativeBinomial(1, 0.25), TruncatedNegativeBinomial(0, 0.05), Poisson(4)], ids=str)
def test_a_simulation_has_the_exact_law_and_no_more_loss_than_epsilon(runs):
    """K is drawn as a selection draws it, and each run says which of three values it saw, through randomised response."""
    count, eps, delta = 20_000, 0.8, 0.01
    stream = NoiseSource(bytes(range(32))).stream("simulation")
    seen = []
    for truth in (2, 0):
        sums = np.cumsum(response(eps, truth))
        best = []
        for level in stream.uniform(count):
            outputs = np.searchsorted(sums, stream.uniform(runs.quantile(level)))
            best.append(outputs.max(initial=-1) + 1)
        seen.append(np.bincount(best, minlength=4) / count)
        expected = law(runs, response(eps, truth))
        assert seen[-1] == pytest.approx(expected, abs=4.5 * math.sqrt(0.25 / count))
    paid = compose_epsilon(best_of(runs, [Spend("answer", Selection(eps))]), delta, Accountant.rdp)
    for p, q in (seen, seen[::-1]):
        assert np.maximum(p - math.exp(paid) * q, 0).sum() <= delta
        assert np.maximum(p - q, 0).sum() > delta  # an epsilon of 0 would be a lie


# As a mechanism among others

RUN = [Spend("moments", Gaussian(1.5)), Spend("score", DiscreteGaussian(12.0))]
DP_SGD = [Spend("dp_sgd", SampledGaussian(1.2, 0.05), 50), Spend("class_counts", DiscreteLaplace(0.2))]


def test_a_certificate_keeps_it():
    for runs in SEVERAL:
        (spend,) = best_of(runs, RUN, DP_SGD)
        assert Spend.from_dict(json.loads(json.dumps(spend.to_dict()))) == spend
        assert hash(spend) == hash(Spend.from_dict(spend.to_dict()))


def test_it_costs_more_than_one_run_and_no_less_with_a_dearer_candidate():
    runs = TruncatedNegativeBinomial(1, 0.2)
    one = compose_epsilon(RUN, DELTA, Accountant.rdp)
    alone = compose_epsilon(best_of(runs, RUN), DELTA, Accountant.rdp)
    assert one < alone < 4 * one
    assert compose_epsilon(best_of(runs, RUN, RUN), DELTA, Accountant.rdp) == alone
    assert compose_epsilon(best_of(runs, RUN, [Spend("moments", Gaussian(0.5))]), DELTA, Accountant.rdp) > alone
    more = compose_epsilon([*best_of(runs, RUN), Spend("base:ab.votes", Gaussian(3.0))], DELTA, Accountant.rdp)
    assert more > alone


def test_other_accountants_bound_it_by_the_same_or_refuse():
    spends = [*best_of(Poisson(3), DP_SGD), *RUN]
    assert compose_epsilon(spends, DELTA) == compose_epsilon(spends, DELTA, Accountant.rdp)
    with rejects("privacy.accountant", "prv"):
        compose_epsilon(spends, DELTA, Accountant.prv)


@pytest.mark.parametrize("runs", [TruncatedNegativeBinomial(0, 0.05), TruncatedNegativeBinomial(1, 0.2), Poisson(4)], ids=str)
@pytest.mark.parametrize("candidates", [[RUN], [DP_SGD, RUN]], ids=["moments", "dp_sgd"])
def test_a_second_implementation_comes_to_the_same(candidates, runs):
    spends = [*best_of(runs, *candidates), Spend("base:ab.votes", Gaussian(8.0))]
    epsilon, bounds = compose_epsilon(spends, DELTA, Accountant.rdp), epsilon_bounds(spends, DELTA)
    assert bounds is not None
    assert bounds[0] <= epsilon <= 1.01 * bounds[0]


def test_the_risk_is_read_off_the_bound_and_says_so():
    spends = best_of(TruncatedNegativeBinomial(1, 0.2), RUN)
    found, epsilon = risk(spends, DELTA), compose_epsilon(spends, DELTA, Accountant.rdp)
    assert found["accountant"] == "rdp"
    one = risk(RUN, DELTA)
    assert one["advantage"] < found["advantage"] < 1
    epsilons, deltas, _ = compose_curve(spends, DELTA)
    assert np.interp(DELTA, deltas[::-1], epsilons[::-1]) == pytest.approx(epsilon, rel=0.02)


def test_noise_is_found_for_the_whole():
    def spends(sigma: float) -> list[Spend]:
        return best_of(TruncatedNegativeBinomial(1, 0.2), [Spend("moments", Gaussian(sigma)), RUN[1]])

    sigma = calibrate(spends, 3.0, DELTA, Accountant.rdp)
    assert compose_epsilon(spends(sigma), DELTA, Accountant.rdp) == pytest.approx(3.0, rel=1e-5)
    with rejects("privacy.epsilon", 0.1):
        calibrate(spends, 0.1, DELTA, Accountant.rdp)
