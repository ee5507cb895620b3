"""Noise: exact distributions, streams that repeat for the same key and purpose and for nothing else."""

from __future__ import annotations

import stat
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, norm

from privacy.noise import NoiseSource, NoiseStream

KEY = bytes(range(32))


def stream(purpose: str) -> NoiseStream:
    return NoiseSource(KEY).stream(purpose)


def within_4_sigma(draws: np.ndarray, weights: np.ndarray, support: np.ndarray) -> bool:
    """Whether the mean square of the draws is no further from its expectation than chance allows."""
    second, fourth = ((weights * support**power).sum() / weights.sum() for power in (2, 4))
    return bool(abs((draws**2).mean() - second) < 4 * ((fourth - second**2) / len(draws)) ** 0.5)


def p_value(draws: np.ndarray, weights: np.ndarray, support: np.ndarray) -> float:
    """Of a chi-square test against probabilities in proportion to `weights` on `support`, rare values in one bin."""
    expected = weights / weights.sum() * len(draws)
    observed = np.array([(draws == x).sum() for x in support])
    common = expected >= 10
    rest = np.flatnonzero(common)[-1]
    for counts in (observed, expected):
        counts[rest] += counts[~common].sum()
    assert observed[common].sum() == len(draws)
    return float(chisquare(observed[common], expected[common]).pvalue)


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.0, 2.0, 2 * 2**0.5, 14.1])
def test_discrete_gaussian_has_its_exact_distribution(sigma):
    draws = stream(f"sigma={sigma}").discrete_gaussian(sigma, 10_000)
    support = np.arange(-int(10 * sigma) - 3, int(10 * sigma) + 4)
    weights = np.exp(-(support**2) / (2 * sigma**2))
    assert draws.dtype == np.int64
    assert p_value(draws, weights, support) > 1e-3
    assert within_4_sigma(draws, weights, support)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 1.5])
def test_discrete_laplace_has_its_exact_distribution(epsilon):
    draws = stream(f"epsilon={epsilon}").discrete_laplace(epsilon, 10_000)
    support = np.arange(-int(40 / epsilon), int(40 / epsilon) + 1)
    weights = np.exp(-epsilon * abs(support))
    assert draws.dtype == np.int64
    assert p_value(draws, weights, support) > 1e-3
    assert within_4_sigma(draws, weights, support)


@pytest.mark.parametrize("sigma", [0.5, 30.0])
def test_gaussian_is_normal_with_the_stated_standard_deviation(sigma):
    draws = stream("normal").gaussian(sigma, 50_000)
    assert draws.std() == pytest.approx(sigma, rel=0.01)
    assert kstest(draws / sigma, "norm").pvalue > 1e-3


@pytest.mark.parametrize("bound", [2, 3, 10, 256, 257])
def test_below_is_uniform(bound):
    numbers = stream("below")
    draws = np.array([numbers.below(bound) for _ in range(20 * bound + 2000)])
    assert p_value(draws, np.ones(bound), np.arange(bound)) > 1e-3


def test_below_one_is_zero():
    assert stream("below").below(1) == 0


def test_uniform_is_uniform():
    assert kstest(stream("uniform").uniform(50_000), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "bits",
    [
        b"\x00",
        b"\x80",
        b"\xff",
    ],
)
def test_uniform_stays_inside_its_open_interval(bits, monkeypatch):
    extreme = stream("extreme")
    monkeypatch.setattr(extreme, "bytes", lambda count: bits * count)
    assert 0 < extreme.uniform(1)[0] < 1
    assert np.isfinite(extreme.gaussian(1.0, 1)).all()


@pytest.mark.parametrize(("bits", "sign"), [(b"\x00", -1), (b"\x00" * 7 + b"\x01", 1)])
def test_a_gaussian_reaches_nine_standard_deviations_on_either_side(bits, sign, monkeypatch):
    extreme = stream("extreme")
    monkeypatch.setattr(extreme, "bytes", lambda count: bits * (count // len(bits)))
    assert sign * extreme.gaussian(2.0, 1)[0] == pytest.approx(2 * -norm.ppf(2.0**-65))


@pytest.mark.parametrize("rate", [1e-300, 2.0**-64, 1e-10, 0.3, 1 - 2.0**-53, 1.0])
def test_a_bernoulli_is_true_on_the_rate_s_share_of_the_words_and_never_on_more(rate, monkeypatch):
    below = int(Fraction(rate) * 2**64)
    words = sorted({0, max(below - 1, 0), min(below, 2**64 - 1), 2**64 - 1})
    chosen = stream("words")
    monkeypatch.setattr(chosen, "bytes", lambda count: b"".join(word.to_bytes(8, "big") for word in words))
    assert chosen.bernoulli(rate, len(words)).tolist() == [word < below for word in words]


def test_a_bernoulli_has_its_rate():
    assert abs(stream("coins").bernoulli(0.3, 100_000).mean() - 0.3) < 4 * (0.3 * 0.7 / 100_000) ** 0.5


def test_the_same_key_and_purpose_repeat_the_same_noise():
    first, again = (stream("pe.votes/round=3").discrete_gaussian(2.0, 100) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("key", "purpose"), [(KEY, "pe.votes/round=4"), (KEY, "pe.votes/round=33"), (KEY[::-1], "pe.votes/round=3")]
)
def test_another_key_or_purpose_is_independent_noise(key, purpose):
    a = stream("pe.votes/round=3").gaussian(1.0, 10_000)
    b = NoiseSource(key).stream(purpose).gaussian(1.0, 10_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    assert not np.isin(a, b).any()


def test_a_stream_does_not_depend_on_how_it_is_read():
    whole, parts = stream("bytes"), stream("bytes")
    assert whole.bytes(50_000) == b"".join(parts.bytes(count) for count in (1, 0, 16_383, 1, 30_000, 3_615))


def test_a_stream_does_not_start_again():
    numbers = stream("bytes")
    assert len({numbers.bytes(32) for _ in range(2000)}) == 2000


def test_every_run_has_its_own_key_and_keeps_it(tmp_path):
    here, there = (NoiseSource.for_run(tmp_path / name, None).stream("x").bytes(32) for name in ("here.key", "there.key"))
    assert here != there
    assert NoiseSource.for_run(tmp_path / "here.key", None).stream("x").bytes(32) == here
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.key", "there.key"]


def test_only_the_owner_may_read_the_key(tmp_path):
    NoiseSource.for_run(tmp_path / "noise.key", None)
    assert stat.S_IMODE((tmp_path / "noise.key").stat().st_mode) == 0o600


def test_a_damaged_key_is_refused(tmp_path):
    (tmp_path / "noise.key").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"noise\.key holds 5 bytes"):
        NoiseSource.for_run(tmp_path / "noise.key", None)


def test_a_noise_seed_is_reproducible_and_writes_no_key(tmp_path):
    draws = [NoiseSource.for_run(tmp_path / "noise.key", seed).stream("x").bytes(32) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert not list(tmp_path.iterdir())
