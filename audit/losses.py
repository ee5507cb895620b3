"""Epsilon once more, by other means than `privacy.accounting`: distributions of privacy losses on a grid, composed by FFT.

The Fourier accountant (Koskela, Jälkö & Honkela 2020) in a few lines, with no code of dp-accounting or Opacus in its numbers. It
is slower and less exact than those, and says how exact it is: losses are rounded up to the grid, by at most one step each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from audit.renyi import best_of_epsilon
from privacy.accounting import Accountant, compose_epsilon
from privacy.mechanisms import (
    BestOf,
    DeclaredPublic,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    Mechanism,
    SampledGaussian,
    Selection,
    Spend,
)

EXACT = 2e-3  # of epsilon: how far apart the bounds may be, if memory allows
MOST_CELLS = 1 << 22
LEAST_DELTA = 1e-10  # below which rounding of float64 is too large a part of delta
WIDEST = 300.0  # epsilon
GRID = 0.02  # of epsilon: what coarser orders than those of `audit.renyi` may cost
_SLACK = 1e-3  # of delta: more than losses beyond the grid come to

Cdf = Callable[[np.ndarray], np.ndarray]  # of the loss where the unit is there, or, for the second of two, where it is not


def epsilon_bounds(spends: Sequence[Spend], delta: float) -> tuple[float, float] | None:
    """Below and above the epsilon of all spends together at `delta`; None where delta is too small or losses are too large."""
    spends = [spend for spend in spends if spend.count and not isinstance(spend.mechanism, DeclaredPublic)]
    if not spends:
        return 0.0, 0.0
    if any(isinstance(spend.mechanism, BestOf) for spend in spends):
        found = best_of_epsilon(spends, delta)
        return None if found is None else (found * (1 - 1e-9), found * (1 + GRID))
    count = sum(spend.count for spend in spends)
    reach = compose_epsilon(spends, delta * _SLACK / 10, Accountant.rdp) + 3  # of the grid alone
    if delta < LEAST_DELTA or reach > WIDEST:
        return None
    cells = 1 << math.ceil(math.log2(min(2 * reach * count / EXACT, MOST_CELLS)))
    step = 2 * reach / cells
    losses = step * np.fft.fftfreq(cells, 1 / cells)
    lower = upper = 0.0
    for way in (0, 1) if any(isinstance(spend.mechanism, SampledGaussian) for spend in spends) else (0,):
        whole = np.ones(cells // 2 + 1, complex)
        for spend in spends:
            cdf = _loss(spend.mechanism)[way]
            whole *= np.fft.rfft(np.maximum(cdf(losses) - cdf(losses - step), 0)) ** spend.count
        masses = np.fft.irfft(whole, cells)
        upper = max(upper, _epsilon(losses, masses, delta * (1 - _SLACK)))
        lower = max(lower, _epsilon(losses, masses, delta * (1 + _SLACK)) - count * step)
    return max(0.0, lower), upper


def _epsilon(losses: np.ndarray, masses: np.ndarray, delta: float) -> float:
    def excess(epsilon: float) -> float:
        beyond = losses > epsilon
        return float(masses[beyond] @ -np.expm1(epsilon - losses[beyond])) - delta

    return float(brentq(excess, 0.0, losses.max(), xtol=1e-9)) if excess(0.0) > 0 else 0.0


def _loss(mechanism: Mechanism) -> tuple[Cdf, Cdf]:
    """P[loss <= t], of a removed and of an added unit."""
    match mechanism:
        case Gaussian(sigma):  # N(1/2σ², 1/σ²)

            def gaussian(t: np.ndarray) -> np.ndarray:
                return ndtr(t * sigma - 1 / (2 * sigma))

            return gaussian, gaussian
        case DiscreteGaussian(sigma):  # (2n + 1) / 2σ² of an n that is noise
            return (_lattice(sigma),) * 2
        case DiscreteLaplace(eps) | Selection(eps):  # randomised response

            def response(t: np.ndarray) -> np.ndarray:
                return np.where(t < -eps, 0.0, np.where(t < eps, 1 / (1 + math.exp(eps)), 1.0))

            return response, response
        case SampledGaussian(sigma, q):
            return _sampled(sigma, q)
    raise ValueError(f"{mechanism} has no losses")


def _lattice(sigma: float) -> Cdf:
    reach = math.ceil(12 * sigma) + 2
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    below = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])

    def cdf(t: np.ndarray) -> np.ndarray:
        return below[np.clip(np.floor(t * sigma**2 - 0.5) + reach + 1, 0, 2 * reach + 1).astype(int)]

    return cdf


def _sampled(sigma: float, q: float) -> tuple[Cdf, Cdf]:
    """The loss at x is log(1 - q + q exp((2x - 1) / 2σ²)), and the negative of it the other way round."""

    def place(t: np.ndarray) -> np.ndarray:
        """x where the loss is t; -inf where it is larger everywhere."""
        with np.errstate(divide="ignore", over="ignore"):
            return sigma**2 * np.log(np.maximum(np.expm1(t) + q, 0) / q) + 0.5

    def removed(t: np.ndarray) -> np.ndarray:
        return (1 - q) * ndtr(place(t) / sigma) + q * ndtr((place(t) - 1) / sigma)

    def added(t: np.ndarray) -> np.ndarray:
        return ndtr(-place(-t) / sigma)

    return removed, added
