"""What mechanisms cost together: the only place that turns noise into epsilon.

`pld` (default) is tight and composes everything but the best of several runs, whose bound is one of Rényi DP; `rdp` and `prv`
reproduce papers that used them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from importlib import metadata
from typing import Any

import numpy as np
from scipy.optimize import brentq

from errors import unusable
from privacy.gaussian import gaussian_epsilon, gaussian_log_delta
from privacy.mechanisms import (
    BestOf,
    DeclaredPublic,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    Mechanism,
    NonPrivate,
    SampledGaussian,
    Selection,
    Spend,
)

VERSION = 1  # of this module, in certificates: one higher where the same mechanisms come to another epsilon
LIBRARIES = ("dp-accounting", "opacus", "scipy")  # that it rests on

# Beyond these `pld` is the bound of `rdp`, which needs no grid, and no exponential that overflows; `prv` refuses.
LARGEST = 500.0  # epsilon
WIDEST = 2e3  # noise multiplier of a discrete Gaussian, whose integers are listed

Cost = Callable[[Sequence[Spend], float], float]  # epsilon, of spends and delta

MOST_CELLS = 1 << 20  # of a grid of losses: seconds
ORDERS = (*(1 + x / 10 for x in range(1, 100)), *range(12, 64))  # of Rényi divergences: those of Opacus
CURVE, LEAST_DELTA = 4_000, 1e-12  # of `compose_curve`: points, and where it ends


class Accountant(Enum):
    pld = "pld"
    prv = "prv"
    rdp = "rdp"


def versions() -> dict[str, Any]:
    """For a certificate: what an epsilon of this module was computed with."""
    return {"version": VERSION, **{name: metadata.version(name) for name in LIBRARIES}}


def compose_epsilon(spends: Sequence[Spend], delta: float, accountant: Accountant = Accountant.pld) -> float:
    """The epsilon of all spends together at `delta`, neighbours by adding or removing one image; inf for NonPrivate.

    Raises InputError for a mechanism that the accountant has no curve for (`prv`: discrete noise).

    >>> votes = Spend("votes", Gaussian(2.0), count=13)
    >>> round(compose_epsilon([votes], delta=1e-3), 4)      # PE, cats
    6.6189
    """
    spends = _counted(spends)
    if not spends:
        return 0.0
    if any(isinstance(spend.mechanism, NonPrivate) for spend in spends):
        return math.inf
    return _composed(spends, delta, accountant)


def compose_curve(spends: Sequence[Spend], delta: float) -> tuple[np.ndarray, np.ndarray, Accountant]:
    """float64 [n] epsilons from 0 on, ascending, and a delta for each at which all spends together are (epsilon, delta)-DP.

    Read off the composition that `compose_epsilon(spends, delta)` comes of, and by which accountant: `pld`, or `rdp` where that
    is out of the reach of `pld`.
    """
    spends = _counted(spends)
    if not spends or any(isinstance(spend.mechanism, NonPrivate) for spend in spends):
        return np.zeros(1), np.array([1.0 if spends else 0.0]), Accountant.pld
    if (mu := _gaussian_mu(spends)) is not None:
        epsilons = np.linspace(0, gaussian_epsilon(1 / mu, LEAST_DELTA), CURVE)
        return epsilons, np.exp([gaussian_log_delta(epsilon, mu) for epsilon in epsilons]), Accountant.pld
    reached, whole = _refined(spends, delta)
    if whole is None:
        deltas = np.geomspace(LEAST_DELTA, 0.999, 60)[::-1]
        return np.array([_rdp(spends, one) for one in deltas]), deltas, Accountant.rdp
    reach = whole.get_epsilon_for_delta(max(LEAST_DELTA, 4 * _rounding(spends)))
    epsilons = np.linspace(0, reach if math.isfinite(reach) else reached, CURVE)
    return epsilons, np.minimum(whole.get_delta_for_epsilon(epsilons) + _rounding(spends), 1), Accountant.pld


def _counted(spends: Sequence[Spend]) -> tuple[Spend, ...]:
    return tuple(spend for spend in spends if spend.count > 0 and not isinstance(spend.mechanism, DeclaredPublic))


@functools.lru_cache(maxsize=4096)  # a plan, its run and what goes on after a kill ask alike
def _composed(spends: tuple[Spend, ...], delta: float, accountant: Accountant) -> float:
    return {Accountant.pld: _pld, Accountant.prv: _prv, Accountant.rdp: _rdp}[accountant](spends, delta)


def calibrate(
    spends: Callable[[float], Sequence[Spend]], epsilon: float, delta: float, accountant: Accountant = Accountant.pld
) -> float:
    """The smallest noise multiplier at which `spends(noise_multiplier)` costs at most `epsilon`.

    It is right to 1e-6 of itself, rounded up; to a few 1e-5 where the grid of losses makes the cost jump (discrete noise).

    Raises InputError where what does not depend on the noise multiplier already costs `epsilon` or more.
    """

    def excess(cost: Cost) -> Callable[[float], float]:
        """log(cost / epsilon) as a function of log(noise multiplier): it falls."""
        return functools.cache(lambda log_sigma: math.log(max(cost(spends(math.exp(log_sigma)), delta), 1e-12) / epsilon))

    exact, tolerance = excess(functools.partial(compose_epsilon, accountant=accountant)), 5e-7
    start, slope, stride = 0.0, 0.0, 1.0
    for cost, error in _estimates({type(spend.mechanism) for spend in spends(1.0)}, accountant):
        estimate = excess(cost)
        with suppress(_NoRoot):  # a looser one may not reach what the next does
            found = _secants(estimate, start, slope, error)
            if found is None:
                root = _bracketed(estimate, start, stride, error)
                found = root, (estimate(root + error) - estimate(root)) / error
            (start, slope), stride = found, 10 * error
            if slope < 0:
                start -= float(np.clip(estimate(start) / slope, -error, error))
    if found := _secants(exact, start, slope, tolerance):
        return math.exp(found[0])
    try:
        return math.exp(_bracketed(exact, start, stride, tolerance))
    except _NoRoot:
        raise unusable("privacy.epsilon", epsilon, f"no noise multiplier comes to it at delta={delta}") from None


class _NoRoot(Exception):
    pass


def _estimates(mechanisms: set[type[Mechanism]], accountant: Accountant) -> list[tuple[Cost, float]]:
    """Quicker ways to about the epsilon of `accountant`, the best one last; each with its error in log(noise multiplier)."""
    if accountant is Accountant.rdp:
        return []
    if DiscreteGaussian in mechanisms and mechanisms <= {Gaussian, DiscreteGaussian}:  # as smooth noise, unless it is little
        return [(lambda spends, delta: compose_epsilon([_smooth(spend) for spend in spends], delta), 1e-4)]
    return [(lambda spends, delta: _rdp(_counted(spends), delta, rough=True), 1e-2), (_coarse, 1e-3)]


def _secants(excess: Callable[[float], float], start: float, slope: float, tolerance: float) -> tuple[float, float] | None:
    """Where the falling `excess` is 0 or less, and more than 0 by `tolerance` below, and its slope there.

    It takes a good guess of both, and few evaluations; None where the guess is too far off, or the slope too small.
    """
    for _ in range(8):
        over = excess(start)
        if tolerance * slope <= over <= 0:
            return start, slope
        if not abs(over) < -slope:
            break
        step = tolerance / 2 - over / slope
        start += step
        if abs(step) > 1e-4:  # a shorter one would measure the jumps of the grid, and not the slope
            slope = (excess(start) - over) / step
    return None


def _bracketed(excess: Callable[[float], float], start: float, stride: float, tolerance: float) -> float:
    """Where the falling `excess` is 0 or less, and more than 0 by `tolerance` below, from any start, in more evaluations.

    Raises _NoRoot where there is no such place in -15 … 15.
    """
    low = high = start
    reach = stride
    while excess(high) > 0:
        low, high, reach = high, high + reach, 2 * reach
        if high > 15:
            raise _NoRoot
    reach = stride
    while excess(low) < 0:
        low, high, reach = low - reach, low, 2 * reach
        if low < -15:
            raise _NoRoot
    root = brentq(excess, low, high, xtol=tolerance) if low < high else low
    while excess(root) > 0:
        root += tolerance
    return float(root)


def _smooth(spend: Spend) -> Spend:
    match spend.mechanism:
        case DiscreteGaussian(sigma):
            return replace(spend, mechanism=Gaussian(sigma))
    return spend


def _coarse(spends: Sequence[Spend], delta: float) -> float:
    """About what `pld` says, mostly within a few hundredths, in a fraction of the time."""
    spends = _counted(spends)
    return _roughly(spends, delta) if _gaussian_mu(spends) is None else compose_epsilon(spends, delta)


@functools.lru_cache(maxsize=4096)  # as `_composed`
def _roughly(spends: tuple[Spend, ...], delta: float) -> float:
    return _refined(spends, delta, rough=True)[0]


def _pld(spends: tuple[Spend, ...], delta: float) -> float:
    """Privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022); Gaussians alone have a closed form."""
    mu = _gaussian_mu(spends)
    return _refined(spends, delta)[0] if mu is None else gaussian_epsilon(1 / mu, delta)


def _gaussian_mu(spends: Sequence[Spend]) -> float | None:
    """Of the one Gaussian mechanism N(mu, 1) that all of them are together (see `privacy.gaussian`); None where some are not."""
    squares = [spend.count / spend.mechanism.noise_multiplier**2 for spend in spends if isinstance(spend.mechanism, Gaussian)]
    return math.sqrt(sum(squares)) if len(squares) == len(spends) else None


@functools.lru_cache(maxsize=2)  # the risk of a release is read off the composition that its epsilon came of
def _refined(spends: tuple[Spend, ...], delta: float, rough: bool = False) -> tuple[float, Any]:
    """Epsilon, and the composed privacy loss distribution that it was read off; None where it is the bound of `rdp`.

    A `rough` one is on the second of the grids that the other is refined through.
    """
    loose = _rdp(spends, delta, rough)
    if any(isinstance(spend.mechanism, BestOf) for spend in spends):
        return loose, None
    sigmas = {spend.mechanism.noise_multiplier for spend in spends if isinstance(spend.mechanism, DiscreteGaussian)}
    if loose > LARGEST or max(sigmas, default=0) > WIDEST or delta <= 2 * _rounding(spends):
        return loose, None
    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.pld.common import DifferentialPrivacyParameters

    def one(mechanism: Mechanism, interval: float) -> pld.PrivacyLossDistribution:
        match mechanism:
            case Gaussian(sigma):
                return pld.from_gaussian_mechanism(sigma, value_discretization_interval=interval)
            case SampledGaussian(sigma, q):
                return pld.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=interval)
            case DiscreteGaussian(sigma):
                return pld.from_discrete_gaussian_mechanism(sigma, sensitivity=1, value_discretization_interval=interval)
            case DiscreteLaplace(eps):
                return pld.from_discrete_laplace_mechanism(eps, sensitivity=1, value_discretization_interval=interval)
            case Selection(eps):  # whatever is eps-DP: randomised response is the worst of it
                pure = DifferentialPrivacyParameters(eps, 0.0)
                return pld.from_privacy_parameters(pure, value_discretization_interval=interval)
        raise unusable("privacy.accountant", "pld", f"it has no curve for {mechanism}")

    def epsilon(interval: float) -> tuple[float, pld.PrivacyLossDistribution]:
        each = [one(spend.mechanism, interval).self_compose(spend.count) for spend in spends]
        whole = functools.reduce(lambda a, b: a.compose(b), each)
        return whole.get_epsilon_for_delta(delta - _rounding(spends)), whole

    # Losses are put on a grid, which is refined until epsilon hardly changes, or by less than rounding may change it, or memory
    # ends: never below the truth, and mostly within 2e-5 of it. Those of a discrete Gaussian are multiples of 1/2σ²: on a grid of
    # its fractions a coarse one does. (Not quite of its fractions: which way a loss on the grid is rounded would change with σ.)
    interval = (1 + 1e-9) / (2 * max(sigmas) ** 2) if len(sigmas) == 1 else 1e-2
    reach = _rdp(spends, 1e-15, rough)  # beyond which losses are cut off
    if rough and 4 * reach / interval < MOST_CELLS:
        interval /= 4
    finer, whole = epsilon(interval)
    while not rough and 0 < finer < math.inf and 4 * reach / interval < MOST_CELLS:
        interval, coarser = interval / 4, finer
        finer, whole = epsilon(interval)
        if coarser - finer < 5e-5 * finer or coarser - finer < finer - whole.get_epsilon_for_delta(delta):
            break
    return float(min(finer, loose)), whole


def _rounding(spends: Sequence[Spend]) -> float:
    """How much less than the truth a delta may be that comes of convolutions in float64: a bound on what FFTs of that many
    factors were seen to lose (0.05 · 2^-52 for each), with room."""
    return 2**-52 * (16 + sum(spend.count for spend in spends))


def _rdp(spends: Sequence[Spend], delta: float, rough: bool = False) -> float:
    """Rényi DP (Mironov 2017), with Opacus' orders and conversion, and larger orders for small epsilon.

    A `rough` one, which is looser, takes a fraction of the time: it leaves out the orders that are not whole, but those below 2.
    """
    orders = tuple(order for order in _orders(spends) if not rough or order < 2 or order == int(order))
    return rdp_epsilon(orders, renyi_curve(spends, orders), delta)


def rdp_epsilon(orders: Sequence[float], curve: np.ndarray, delta: float) -> float:
    """From a Rényi divergence for each order: Balle et al. (2020), Theorem 21, to the last bit as Opacus computes it.

    Opacus takes a second to import, which is left to what needs it.
    """
    alpha = np.array(orders)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a divergence or a delta without end
        epsilons = curve - (np.log(delta) + np.log(alpha)) / (alpha - 1) + np.log((alpha - 1) / alpha)
    known = epsilons[~np.isnan(epsilons)]
    return max(0.0, float(known.min())) if len(known) else math.inf  # the conversion can go below 0


def renyi_curve(spends: Sequence[Spend], orders: tuple[float, ...]) -> np.ndarray:
    """A divergence for each order: those of all spends together."""
    curves = (spend.count * np.array(_rdp_curve(spend.mechanism, orders)) for spend in _counted(spends))
    return sum(curves, np.zeros(len(orders)))


def _orders(spends: Sequence[Spend]) -> tuple[float, ...]:
    sampled = any(isinstance(spend.mechanism, SampledGaussian) for spend in _single(spends))  # whose large orders overflow
    return (*ORDERS, *(64 * 2**i for i in range(0 if sampled else 12)))


def _single(spends: Sequence[Spend]) -> Iterator[Spend]:
    """Those within a choice of the best, too."""
    for spend in spends:
        match spend.mechanism:
            case BestOf(_, candidates):
                for each in candidates:
                    yield from _single(each)
            case _:
                yield spend


@functools.lru_cache(maxsize=1024)
def _rdp_curve(mechanism: Mechanism, orders: tuple[float, ...]) -> tuple[float, ...]:
    match mechanism:
        case Gaussian(sigma) | DiscreteGaussian(sigma):  # Mironov (2017), Prop. 7; Canonne, Kamath & Steinke (2020), Thm. 4
            with np.errstate(divide="ignore"):
                return tuple(np.array(orders) / (2 * np.float64(sigma) ** 2))
        case SampledGaussian(sigma, q):
            from opacus.accountants.analysis.rdp import compute_rdp

            return tuple(compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=list(orders)))
        case DiscreteLaplace(eps) | Selection(eps):  # pure eps-DP: Bun & Steinke (2016), Prop. 3.3, and never above eps
            return tuple(np.minimum(np.asarray(orders) * eps**2 / 2, eps))
        case BestOf(runs, candidates):  # which candidate is random: the divergence of mixtures is at most the largest one
            one_run = np.max([renyi_curve(spends, orders) for spends in candidates], axis=0)
            return tuple(runs.best(np.array(orders), one_run))
    raise unusable("privacy.accountant", "rdp", f"it has no curve for {mechanism}")


def _prv(spends: Sequence[Spend], delta: float) -> float:
    """Privacy random variables (Gopi et al. 2021), Opacus' implementation, its upper bound with epsilon error 0.01."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    for spend in spends:
        match spend.mechanism:
            case SampledGaussian(sigma, q):
                accountant.history.append((sigma, q, spend.count))
            case Gaussian(sigma):
                accountant.history.append((sigma, 1.0, spend.count))
            case other:
                raise unusable("privacy.accountant", "prv", f"it has no curve for {other.kind}; use pld or rdp")
    slack, count = max(delta / 1000, _rounding(spends)), sum(spend.count for spend in spends)
    if slack > delta / 10:
        raise unusable("privacy.accountant", "prv", f"it is not exact enough for delta={delta:g}; use rdp")
    # The grid of Opacus' _get_domain: it reaches to what Rényi DP says, in steps that an error of epsilon of 0.01 allows.
    reach = _rdp(spends, slack / 8 / count) + 3
    if reach > LARGEST or 200 * reach * math.sqrt(count * math.log(12 / slack) / 2) > 4 * MOST_CELLS:
        raise unusable("privacy.accountant", "prv", "it holds no losses as large as these; use rdp, or more noise")
    with np.errstate(divide="ignore"):  # log(1 - q) of an unsampled mechanism
        try:
            return max(0.0, float(accountant.get_epsilon(delta, delta_error=slack)))
        except RuntimeError as error:  # delta and its error are 1 together
            raise unusable("privacy.accountant", "prv", f"it has no epsilon for delta={delta:g}; use rdp") from error
