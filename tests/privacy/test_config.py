from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.accounting import compose_epsilon
from privacy.config import LEAST_NOISE, Privacy, caution
from privacy.mechanisms import Gaussian, Spend
from tests.rejects import rejects


@pytest.mark.parametrize(
    ("num_private", "delta"),
    [(1437, 6.9e-5), (14, 7.1e-3), (50_000, 2.0e-6), (60_000, 1.6e-6), (302_436, 3.3e-7), (1, 0.1), (10**12, 6.3e-14)],
)
def test_delta_is_a_tenth_of_one_over_n_unless_it_is_stated(num_private, delta):
    assert Privacy().delta_for(num_private) == delta <= min(1 / (10 * num_private), num_private**-1.1)
    assert Privacy(delta=1e-5).delta_for(num_private) == 1e-5


@given(num_private=st.integers(1, 10**12))
def test_the_default_delta_is_rounded_down_by_less_than_a_tenth_and_needs_no_caution(num_private):
    delta, most = Privacy().delta_for(num_private), min(1 / (10 * num_private), num_private**-1.1)
    assert 0.9 * most < delta <= most * (1 + 1e-15)
    assert caution(delta, num_private) is None


@pytest.mark.parametrize(
    ("delta", "size", "said"),
    [
        (1e-4, 1000, None),
        (1.01e-4, 1000, "publishes one image outright with probability 0.1 would"),
        (
            3.4e-4,
            1437,
            "delta=0.00034 times 1437 images is 0.49: a mechanism that publishes one image outright with probability 0.49",
        ),
        (0.1, 10, "delta=0.1 is not below 1/10: it allows to publish an image outright"),
        (0.5, 1000, "not below 1/1000"),
        (0.5, 0, None),
    ],
)
def test_a_caution_says_what_a_large_delta_allows(delta, size, said):
    warning = caution(delta, size)
    assert warning is None if said is None else said in (warning or "")


@pytest.mark.parametrize("sigma", [0.0, 1e-300, 1e-9, 0.99e-6, float("nan")])
def test_noise_too_small_for_the_accountant_is_refused(sigma):
    with rejects("privacy.noise_multiplier", sigma):
        Privacy(noise_multiplier=sigma).check()
    Privacy(noise_multiplier=LEAST_NOISE).check()


@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-12])
@pytest.mark.parametrize("rounds", [1, 100, 10_000])
def test_the_least_noise_has_an_exact_epsilon(rounds, delta):
    mu = rounds**0.5 / LEAST_NOISE
    limit = mu * mu / 2 + mu * norm.isf(delta) - 1  # of large mu: there delta = Phi(mu/2 - eps/mu) - phi(mu/2 - eps/mu) / mu
    assert compose_epsilon([Spend("votes", Gaussian(LEAST_NOISE), rounds)], delta) == pytest.approx(limit, abs=1e-7 * mu)


def test_a_smaller_dataset_changes_delta_and_sample_rate():
    from tests.command import typed

    one = typed("method=dp_diffusion", "tuned=none", "dataset.fraction=0.5")
    assert one.dataset.num_private == 718
    assert one.delta == 1.3e-4
    (spend,) = one.method.spends(1.0, one.dataset, one.privacy)
    assert spend.mechanism.sample_rate == 256 / 718  # type: ignore[attr-defined]
    two = typed("method=dp_diffusion", "tuned=none", "method.batch_size=null", "method.sample_rate=0.25", "dataset.fraction=0.01")
    (spend,) = two.method.spends(1.0, two.dataset, two.privacy)
    assert spend.mechanism.sample_rate == 0.25  # type: ignore[attr-defined]
    assert two.method.work(two.dataset, two.model)["backward_calls"] == round(100 * 0.25 * 14 * 4)


@pytest.mark.parametrize(
    ("overrides", "delta"),
    [
        *((f"+experiment=digits/{name}", 3.4e-4) for name in ("dp_diffusion", "dp_loda", "floor_and_ceiling", "pe", "views")),
        ("+experiment=digits/adapters", 3.4e-4),
        ("+experiment=digits/fractions", 3.4e-4),
        ("+experiment=digits/fractions dataset.fraction=0.1", 3.4e-3),
        ("+experiment=digits/fractions dataset.fraction=0.01", 3.5e-2),
        ("+experiment=pe/mnist", 8.3e-6),
        ("+experiment=dp_diffusion/mnist_printed", 8.3e-6),
    ],
)
def test_experiments_with_stored_numbers_name_the_delta_that_these_were_measured_at(overrides, delta):
    from tests.command import composed

    assert composed(*overrides.split()).privacy.delta == delta
