"""What an attacker may learn: closed forms of single mechanisms, attacks that reach the bounds, and none that pass them."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privacy import risk as module
from privacy.accounting import Accountant, compose_epsilon
from privacy.mechanisms import (
    DeclaredPublic,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    NonPrivate,
    SampledGaussian,
    Selection,
    Spend,
    Unit,
)
from privacy.risk import TradeOff, format_epsilon, in_words, percent, risk, rounded_up

DELTA = 1e-5
RATES = [0.001, 0.01, 0.1, 0.5]


def curve(*spends: Spend) -> TradeOff:
    return TradeOff.of(spends, DELTA)


@pytest.mark.parametrize(("sigma", "rounds"), [(0.5, 1), (2.0, 5), (40.0, 3)])
def test_gaussian_rounds_have_their_closed_form(sigma, rounds):
    """f(alpha) = Phi(Phi^-1(1 - alpha) - mu): Dong, Roth & Su (2022), eq. 6."""
    mu, found = math.sqrt(rounds) / sigma, curve(Spend("votes", Gaussian(sigma), rounds))
    for rate in RATES:
        exact = norm.sf(norm.isf(rate) - mu)
        assert found.true_positives(rate) >= exact * (1 - 1e-12)
        assert found.true_positives(rate) == pytest.approx(exact, rel=1e-5)
    assert found.advantage == pytest.approx(2 * norm.cdf(mu / 2) - 1, rel=1e-9)


@pytest.mark.parametrize(("sigma", "rounds", "prior"), [(2.0, 1, 0.5), (2.0, 5, 0.1), (40.0, 3, 0.5)])
def test_the_posterior_is_never_below_that_of_the_loss_s_quantile_and_near_it(sigma, rounds, prior):
    """The loss of the Gaussian mechanism is N(mu²/2, mu²) where the unit is there."""
    mu = math.sqrt(rounds) / sigma
    loss = mu * mu / 2 + mu * norm.isf(DELTA)
    exact = prior / (prior + (1 - prior) * math.exp(-loss))
    found = curve(Spend("votes", Gaussian(sigma), rounds)).posterior(prior, DELTA)
    odds = [math.log(p / (1 - p) / (prior / (1 - prior))) for p in (exact, found)]
    assert odds[0] <= odds[1] <= 1.3 * odds[0]


@pytest.mark.parametrize("mechanism", [DiscreteLaplace(0.7), Selection(0.7)], ids=lambda mechanism: mechanism.kind)
def test_a_pure_mechanism_is_at_worst_randomised_response(mechanism):
    found = curve(Spend("counts", mechanism))
    for rate in (0.01, 0.1, 0.6):
        expected = min(math.exp(0.7) * rate, 1 - math.exp(-0.7) * (1 - rate))
        assert found.true_positives(rate) == pytest.approx(expected, rel=1e-3)
    assert found.advantage == pytest.approx(math.tanh(0.35), rel=1e-4)
    assert found.posterior(0.5, DELTA) == pytest.approx(1 / (1 + math.exp(-0.7)), abs=2e-3)


def test_one_step_of_dp_sgd_has_the_advantage_of_its_sampling_rate():
    """TV(N(0, s²), (1 - q) N(0, s²) + q N(1, s²)) = q TV of the two."""
    found = curve(Spend("dp_sgd", SampledGaussian(0.8, 0.3)))
    assert found.advantage == pytest.approx(0.3 * (2 * norm.cdf(1 / 1.6) - 1), rel=1e-3)


def test_an_attack_on_real_votes_does_not_pass_the_bound_and_comes_near_it():
    """Five histograms with discrete noise, the unit's bin known; the sum of the five is what the best test looks at."""
    rng, sigma, rounds = np.random.default_rng(0), 2.0, 5
    integers = np.arange(-60, 61)
    weights = np.exp(-(integers**2) / (2 * sigma**2))
    noise = rng.choice(integers, p=weights / weights.sum(), size=(2, 400_000, rounds)).sum(-1)
    without, among = noise[0], noise[1] + rounds
    found = curve(Spend("votes", DiscreteGaussian(sigma), rounds))
    for threshold in (6, 9, 12):
        false, true = (without >= threshold).mean(), (among >= threshold).mean()
        assert found.true_positives(false) - 0.02 < true < found.true_positives(false) + 0.005


SPENDS = {
    "dp_sgd": [Spend("dp_sgd", SampledGaussian(1.2, 0.02), 300)],
    "mixed": [Spend("moments", Gaussian(3.0)), Spend("votes", DiscreteGaussian(4.0), 2), Spend("selection", Selection(0.2))],
}


@pytest.mark.parametrize("name", SPENDS)
def test_the_curve_is_the_composition_that_epsilon_is_from(name):
    found = curve(*SPENDS[name])
    epsilon = compose_epsilon(SPENDS[name], DELTA)
    assert np.interp(epsilon, found.epsilons, found.deltas) == pytest.approx(DELTA, rel=0.02)
    assert (np.diff(found.deltas) <= 1e-15).all()
    assert found.accountant is Accountant.pld


@given(st.floats(0.3, 30), st.integers(1, 20), st.floats(1e-4, 0.9))
@settings(max_examples=30, deadline=None)
def test_rates_are_rates_above_chance_and_more_noise_shows_less(sigma, rounds, rate):
    more, less = (curve(Spend("votes", Gaussian(s), rounds)) for s in (sigma, 2 * sigma))
    assert rate <= less.true_positives(rate) <= more.true_positives(rate) <= 1
    assert 0 < less.advantage <= more.advantage <= 1
    assert more.true_positives(rate) - rate <= more.advantage + 1e-12
    assert 0.1 < less.posterior(0.1, DELTA) <= more.posterior(0.1, DELTA) <= more.posterior(0.1, DELTA / 10) <= 1


def test_noise_beyond_the_grid_has_the_bound_of_renyi_dp_and_says_so():
    found = curve(Spend("votes", DiscreteGaussian(3000.0), 4))
    assert found.accountant is Accountant.rdp
    assert 2 * norm.cdf(1 / 3000) - 1 <= found.advantage < 0.02


def test_nothing_spent_tells_nothing_and_the_data_tell_all():
    for spends in ([], [Spend("counts", DeclaredPublic())]):
        nothing = risk(spends, DELTA)
        assert nothing["advantage"] == 0
        assert list(nothing["true_positive_rate"].values()) == pytest.approx([0.001, 0.01, 0.1])
        assert list(nothing["posterior"].values()) == pytest.approx([0.5, 0.1])
    everything = risk([Spend("images", NonPrivate())], DELTA)
    assert everything["advantage"] == 1
    assert set(everything["true_positive_rate"].values()) == set(everything["posterior"].values()) == {1.0}


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0101, "1.1 %"), (0.25, "25 %"), (0.99999, "nearly 100 %"), (1.0, "100 %")]
)
def test_a_bound_is_rounded_up_and_a_certainty_is_no_bound(share, text):
    assert percent(share) == text


@given(st.floats(1e-9, 1e9), st.integers(1, 6))
def test_what_is_rounded_up_is_never_less_and_has_its_digits(value, digits):
    shown = rounded_up(value, digits)
    assert value * (1 - 2e-12) <= shown <= value * (1 + 10.0 ** (1 - digits) + 1e-12)
    assert shown == float(f"{shown:.{digits - 1}e}")


def test_an_epsilon_is_rounded_up_but_a_target_that_was_met_is_that_target():
    assert [format_epsilon(value) for value in (2.99999999947, 3, 0.56132, 9.92345, "inf")] == ["3", "3", "0.5614", "9.924", "∞"]
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(("unit", "whose"), [(Unit.image, "one image"), (Unit.user, "one person")])
def test_the_words_hold_the_numbers(unit, whose):
    told = in_words(risk([Spend("votes", Gaussian(2.0))], DELTA), unit)
    assert f"whether {whose} was" in told
    assert "up to 3.4 %" in told  # 1 - Phi(Phi^-1(0.99) - 1/2)
    assert "1e-05" in told
