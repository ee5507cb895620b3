"""Composition: golden numbers, an exact lattice convolution, and what every accountant must agree on."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent
from scipy.optimize import brentq

import privacy.accounting
import privacy.gaussian
from privacy.accounting import ORDERS, Accountant, calibrate, compose_epsilon, rdp_epsilon, renyi_curve
from privacy.gaussian import gaussian_epsilon, gaussian_noise_multiplier
from privacy.mechanisms import (
    DeclaredPublic,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    NonPrivate,
    SampledGaussian,
    Selection,
    Spend,
)
from tests.facts import FACTS, gaussian_rows
from tests.rejects import rejects

ROWS = [(name, accountant) for name in FACTS if name.startswith("dpd.sigma.") for accountant in (Accountant.rdp, Accountant.pld)]
KEYS = {Accountant.rdp: "opacus_rdp", Accountant.pld: "dpa_pld", Accountant.prv: "opacus_prv"}
FAST = "dpd.sigma.CIFAR_N50000.eps10.T200.delta1e-05"

accountants = pytest.mark.parametrize("accountant", list(Accountant), ids=lambda accountant: accountant.value)


def rounds_of_votes(sigma: float, rounds: int = 1) -> list[Spend]:
    return [Spend("votes", Gaussian(sigma), rounds)]


def dp_sgd(name: str, sigma: float | None = None) -> list[Spend]:
    inputs = FACTS[name]["inputs"]
    q = inputs.get("q") or inputs["batch"] / inputs["N"]
    return [Spend("gradients", SampledGaussian(sigma or inputs["sigma"], q), inputs["T"])]


@pytest.mark.parametrize(("row", "sigma", "rounds", "delta", "epsilon"), gaussian_rows(), ids=lambda value: str(value)[:40])
def test_gaussian_rounds_cost_the_golden_epsilon(row, sigma, rounds, delta, epsilon):
    assert compose_epsilon(rounds_of_votes(sigma, rounds), delta) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Optimal order:UserWarning")
@pytest.mark.parametrize("delta", [1e-12, 1.6e-6, 1e-3, 0.5])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 1.3, 12.0, 5e3])
def test_renyi_divergences_cost_to_the_last_bit_what_opacus_says(sigma, delta):
    orders = list(ORDERS)
    assert orders == RDPAccountant.DEFAULT_ALPHAS
    for q, spends in ((1.0, [Spend("votes", Gaussian(sigma), 3)]), (0.03, [Spend("gradients", SampledGaussian(sigma, 0.03), 3)])):
        curve = compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=orders) * 3
        assert np.array_equal(renyi_curve(spends, ORDERS), curve, equal_nan=True)
        known = float(get_privacy_spent(orders=orders, rdp=curve, delta=delta)[0])
        assert rdp_epsilon(ORDERS, curve, delta) == max(0.0, known)


def test_divergences_without_end_cost_an_infinite_epsilon():
    assert rdp_epsilon(ORDERS, np.full(len(ORDERS), math.inf), 1e-6) == math.inf
    assert rdp_epsilon(ORDERS, np.full(len(ORDERS), math.nan), 1e-6) == math.inf


@pytest.mark.parametrize(
    ("name", "accountant"),
    [pytest.param(*row, marks=() if row[0] == FAST else pytest.mark.slow, id=f"{row[0]}-{row[1].value}") for row in ROWS],
)
def test_calibration_finds_the_golden_noise_multiplier(name, accountant):
    inputs = FACTS[name]["inputs"]
    sigma = calibrate(lambda sigma: dp_sgd(name, sigma), inputs["eps"], inputs["delta"], accountant)
    assert sigma == pytest.approx(FACTS[name]["computed_value"][KEYS[accountant]], rel=1e-5)


@accountants
def test_mnist_as_stated_costs_what_each_accountant_says(accountant):
    fact = FACTS["dpd.mnist.as_stated"]
    epsilon = compose_epsilon(dp_sgd("dpd.mnist.as_stated"), fact["inputs"]["delta"], accountant)
    exact = 1e-9 if accountant is not Accountant.pld else 5e-6  # the golden value is on a grid of 1e-4, and never below the truth
    assert epsilon == pytest.approx(fact["computed_value"][KEYS[accountant]], rel=exact)


def test_mnist_pld_agrees_with_an_independent_prv_estimate():
    fact = FACTS["dpd.mnist.as_stated"]
    epsilon = compose_epsilon(dp_sgd("dpd.mnist.as_stated"), fact["inputs"]["delta"])
    assert epsilon == pytest.approx(fact["computed_value"]["ms_prv_estimate"], abs=5e-5)


@pytest.mark.parametrize(("accountant", "epsilon", "tolerance"), [(Accountant.rdp, None, 1e-9), (Accountant.pld, 9.2907, 5e-5)])
def test_mnist_of_50000_images_costs_the_golden_epsilon(accountant, epsilon, tolerance):
    fact = FACTS["dpd.mnist.N50000"]
    spent = compose_epsilon(dp_sgd("dpd.mnist.N50000"), fact["inputs"]["delta"], accountant)
    assert spent == pytest.approx(epsilon or fact["computed_value"], abs=tolerance)


def exact_discrete_gaussian_epsilon(sigma: float, rounds: int, delta: float) -> float:
    """Losses of T rounds sum to (T - 2s) / 2σ², s a sum of T discrete Gaussians, whose distribution is a convolution."""
    reach = int(20 * sigma) + 10
    one = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    one /= one.sum()
    total = one
    for _ in range(rounds - 1):
        total = np.convolve(total, one)
    s = np.arange(len(total)) - len(total) // 2
    loss = (rounds - 2 * s) / (2 * sigma**2)
    return float(brentq(lambda eps: (total * np.maximum(0, -np.expm1(eps - loss))).sum() - delta, 0, 100, xtol=1e-12))


@pytest.mark.parametrize(
    ("sigma", "rounds", "delta"), [(0.8, 1, 1e-3), (1.5, 5, 3.4e-4), (1.0, 3, 1e-9), (2.0, 8, 1e-5), (14.14, 7, 1e-5)]
)
def test_discrete_gaussian_costs_the_exact_convolution_and_never_less(sigma, rounds, delta):
    exact = exact_discrete_gaussian_epsilon(sigma, rounds, delta)
    epsilon = compose_epsilon([Spend("votes", DiscreteGaussian(sigma), rounds)], delta)
    assert exact * (1 - 1e-9) <= epsilon <= exact * (1 + 1e-4)


@pytest.mark.parametrize("rounds", [1, 10])
def test_wide_discrete_noise_costs_what_continuous_noise_costs(rounds):
    discrete = compose_epsilon([Spend("votes", DiscreteGaussian(20.0), rounds)], 1e-5)
    assert discrete == pytest.approx(gaussian_epsilon(20.0, 1e-5, rounds), rel=1e-3)


@pytest.mark.parametrize(("epsilon", "count"), [(0.01, 1), (0.5, 1), (0.5, 2), (1.3, 3)])
def test_laplace_composes_to_the_sum_of_its_epsilons_as_delta_vanishes(epsilon, count):
    assert compose_epsilon([Spend("counts", DiscreteLaplace(epsilon), count)], 1e-12) == pytest.approx(count * epsilon, rel=1e-6)


@pytest.mark.parametrize("delta", [1e-2, 1e-3])
def test_one_laplace_costs_its_hockey_stick_divergence(delta):
    """Losses are +eps with probability 1 / (1 + e^-eps), else -eps."""
    epsilon = 0.5
    expected = epsilon + math.log1p(-delta * (1 + math.exp(-epsilon)))
    assert compose_epsilon([Spend("counts", DiscreteLaplace(epsilon))], delta) == pytest.approx(expected, rel=1e-6)


@accountants
def test_data_without_noise_cost_everything_and_public_facts_nothing(accountant):
    free = Spend("class_counts", DeclaredPublic())
    assert compose_epsilon([], 1e-5, accountant) == 0.0
    assert compose_epsilon([free], 1e-5, accountant) == 0.0
    assert compose_epsilon([Spend("votes", Gaussian(2.0), count=0)], 1e-5, accountant) == 0.0
    assert compose_epsilon([free, *rounds_of_votes(2.0)], 1e-5, accountant) == compose_epsilon(
        rounds_of_votes(2.0), 1e-5, accountant
    )
    assert compose_epsilon([*rounds_of_votes(2.0), Spend("real_data", NonPrivate())], 1e-5, accountant) == math.inf


@pytest.mark.parametrize("mechanism", [DiscreteGaussian(2.0), DiscreteLaplace(0.5)])
def test_prv_refuses_discrete_noise(mechanism):
    with rejects("privacy.accountant", "prv", mechanism.kind, "pld or rdp"):
        compose_epsilon([Spend("votes", mechanism)], 1e-5, Accountant.prv)


@pytest.mark.parametrize("accountant", [Accountant.pld, Accountant.rdp], ids=lambda accountant: accountant.value)
def test_unlike_mechanisms_compose_in_any_order_and_any_grouping(accountant):
    votes, counts, gradients = DiscreteGaussian(1.0), DiscreteLaplace(0.5), SampledGaussian(2.0, 0.5)
    together = [Spend("votes", votes, 2), Spend("counts", counts), Spend("gradients", gradients)]
    one_by_one = [Spend("gradients", gradients), Spend("votes", votes), Spend("counts", counts), Spend("votes", votes)]
    epsilon = compose_epsilon(together, 1e-5, accountant)
    assert compose_epsilon(one_by_one, 1e-5, accountant) == pytest.approx(epsilon, rel=1e-6)
    assert epsilon > compose_epsilon(together[:2], 1e-5, accountant) > compose_epsilon(together[:1], 1e-5, accountant)


def test_sampling_every_example_is_not_sampling():
    assert compose_epsilon([Spend("gradients", SampledGaussian(2.0, 1.0), 5)], 1e-5) == pytest.approx(
        gaussian_epsilon(2.0, 1e-5, 5), rel=1e-4
    )


@pytest.mark.parametrize(
    ("spend", "fine"),
    [
        (Spend("g", SampledGaussian(1.5, 0.18), 300), 1e-4),
        (Spend("g", SampledGaussian(0.27, 0.011), 3), 1e-3),
        (Spend("v", DiscreteGaussian(1.362), 10), 2e-5),
        (Spend("v", DiscreteGaussian(0.2), 8), 1e-3),
        (Spend("v", DiscreteGaussian(11.8), 10), 4e-6),
    ],
)
def test_losses_are_put_on_a_grid_as_fine_as_epsilon_needs(spend, fine):
    """Beside one very fine grid for every case, which takes much longer."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    match spend.mechanism:
        case SampledGaussian(sigma, q):
            one = pld.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=fine)
        case DiscreteGaussian(sigma):
            one = pld.from_discrete_gaussian_mechanism(sigma, sensitivity=1, value_discretization_interval=fine)
    finest = one.self_compose(spend.count).get_epsilon_for_delta(1e-5)
    assert compose_epsilon([spend], 1e-5) == pytest.approx(finest, rel=5e-5)


@pytest.mark.parametrize(
    "spend", [Spend("v", Gaussian(2.0), 5), Spend("v", DiscreteGaussian(2.0), 5), Spend("g", SampledGaussian(1.0, 0.3), 20)]
)
def test_rdp_is_never_below_pld(spend):
    assert compose_epsilon([spend], 1e-5, Accountant.rdp) >= compose_epsilon([spend], 1e-5, Accountant.pld)


@pytest.mark.parametrize(("epsilon", "delta", "rounds"), [(0.01, 1e-6, 1), (1.0, 1e-5, 20), (10.0, 3e-6, 7), (50.0, 1e-3, 3)])
def test_calibration_of_gaussians_is_the_closed_form(epsilon, delta, rounds):
    sigma = calibrate(lambda sigma: rounds_of_votes(sigma, rounds), epsilon, delta)
    assert sigma == pytest.approx(gaussian_noise_multiplier(epsilon, delta, rounds), rel=1e-6)


def test_calibrated_noise_costs_at_most_the_target_and_less_noise_more():
    def spends(sigma: float) -> list[Spend]:
        return [Spend("counts", DiscreteLaplace(0.5)), Spend("votes", DiscreteGaussian(sigma), 8)]

    sigma = calibrate(spends, 8.0, 1e-3)
    assert compose_epsilon(spends(sigma), 1e-3) <= 8.0 < compose_epsilon(spends(sigma * (1 - 1e-5)), 1e-3)


def test_calibration_refuses_a_target_that_is_spent_already():
    with rejects("privacy.epsilon", 1.0, "delta=1e-05"):
        calibrate(lambda sigma: [Spend("counts", DiscreteLaplace(2.0)), *rounds_of_votes(sigma)], 1.0, 1e-5, Accountant.rdp)


@pytest.mark.parametrize("spends", [[Spend("counts", DiscreteLaplace(0.5))], [Spend("votes", Gaussian(2.0), 0)], []])
def test_a_cost_that_no_noise_changes_has_no_noise_multiplier(spends):
    with rejects("privacy.epsilon", 1.0, "delta=1e-05"):
        calibrate(lambda _: spends, 1.0, 1e-5)


def test_a_target_that_only_the_tight_accountant_reaches_is_reached():
    def spends(sigma: float) -> list[Spend]:
        return [Spend("counts", DiscreteLaplace(0.25), 16), *rounds_of_votes(sigma)]

    with rejects("privacy.epsilon", 3.2):
        calibrate(spends, 3.2, 1e-3, Accountant.rdp)  # 3.5 for the counts alone
    sigma = calibrate(spends, 3.2, 1e-3)  # 2.9
    assert 3.19 < compose_epsilon(spends(sigma), 1e-3) <= 3.2


@pytest.mark.parametrize("module", [privacy.accounting, privacy.gaussian], ids=lambda module: module.__name__)
def test_the_worked_examples_hold(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("rounds", [2, 100, 4000])
@pytest.mark.parametrize("delta", [1e-5, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-15, 1e-300])
def test_convolutions_are_never_below_the_truth_at_any_delta(rounds, delta):
    """A mechanism that samples everybody is the Gaussian mechanism, whose epsilon is exact; rounding errs by more than 1e-13."""
    sigma = 0.7 * math.sqrt(rounds)
    exact = gaussian_epsilon(sigma, delta, rounds)
    spends = [Spend("gradients", SampledGaussian(sigma, 1.0), rounds)]
    epsilon = compose_epsilon(spends, delta)
    assert exact <= epsilon <= compose_epsilon(spends, delta, Accountant.rdp)
    assert epsilon <= exact * (1 + (1e-4 if delta >= 1e-9 else 0.06))


@pytest.mark.parametrize("sample_rate", [0.01, 0.3])
@pytest.mark.parametrize("delta", [1e-12, 1e-14])
def test_a_tiny_delta_costs_a_sampled_gaussian_no_more_than_rdp_says_and_more_than_a_larger_one(sample_rate, delta):
    spends = [Spend("gradients", SampledGaussian(1.0, sample_rate), 1000)]
    larger, epsilon, loose = (
        compose_epsilon(spends, 10 * delta),
        compose_epsilon(spends, delta),
        compose_epsilon(spends, delta, Accountant.rdp),
    )
    assert larger < epsilon <= loose


EXTREMES = [
    *(SampledGaussian(sigma, q) for sigma in (1e-6, 0.05, 1.0, 1e6) for q in (1e-9, 0.2, 1.0)),
    *(mechanism(sigma) for mechanism in (Gaussian, DiscreteGaussian) for sigma in (1e-6, 0.05, 1.0, 1e6)),
    *(mechanism(epsilon) for mechanism in (DiscreteLaplace, Selection) for epsilon in (1e-6, 1.0, 710.0, 9.9e5)),
]


@accountants
@pytest.mark.parametrize("mechanism", EXTREMES, ids=str)
def test_whatever_may_be_set_has_an_epsilon_or_is_refused_in_one_line(mechanism, accountant):
    votes = Spend("votes", Gaussian(1.0), 2)
    for delta, spends in ((1e-300, []), (1e-12, []), (1e-5, [votes]), (0.999, [])):
        try:
            epsilon = compose_epsilon([Spend("one", mechanism, 3), *spends], delta, accountant)
        except ValueError as error:
            refused = accountant is Accountant.prv and f"privacy.accountant={accountant.value}" in str(error)
            if not refused:
                raise
        else:
            assert 0 <= epsilon < math.inf


@pytest.mark.parametrize("epsilon", [1.0, 710.0, 9.9e5])
def test_pure_privacy_costs_about_its_epsilon_however_large(epsilon):
    assert compose_epsilon([Spend("choice", Selection(epsilon))], 1e-9) == pytest.approx(epsilon, rel=1e-3, abs=30)
