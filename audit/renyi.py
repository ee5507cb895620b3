"""The price of the best of several runs once more, by other means than `privacy.accounting`: divergences as sums and integrals.

Papernot & Steinke (2022), Theorems 2 and 6, on a finer grid of orders, with no code of Opacus or dp-accounting in its numbers.
The theorems give an upper bound on the price and nothing below it: a smaller epsilon than this one does not follow from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, logsumexp

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
from privacy.selection import Poisson, Runs, TruncatedNegativeBinomial

LARGEST_SAMPLED = 128.0  # order
MOST_RUNS = 1 << 22  # of which the masses are added up
_TENTHS = np.arange(11, 110) / 10  # all orders of `privacy.accounting` are among these, so that none of its bounds is lower
ORDERS = np.unique(
    [*_TENTHS, *np.arange(11.0, 64), *np.geomspace(1.005, 11, 200), *np.geomspace(11, 131072, 150), *64 * 2.0 ** np.arange(12)]
)


def best_of_epsilon(spends: Sequence[Spend], delta: float) -> float | None:
    """Of all spends together; None where more runs may happen than can be added up."""
    orders = ORDERS[ORDERS <= LARGEST_SAMPLED] if _sampled(spends) else ORDERS
    try:
        total = _sum(spends, orders)
    except OverflowError:
        return None
    epsilons = total + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(epsilons.min()))


def _sampled(spends: Sequence[Spend]) -> bool:
    within = [spend for one in spends if isinstance(one.mechanism, BestOf) for each in one.mechanism.candidates for spend in each]
    return any(isinstance(spend.mechanism, SampledGaussian) for spend in spends) or (bool(within) and _sampled(within))


def _sum(spends: Sequence[Spend], orders: np.ndarray) -> np.ndarray:
    counted = [spend for spend in spends if not isinstance(spend.mechanism, DeclaredPublic)]
    return sum((spend.count * _divergence(spend.mechanism, orders) for spend in counted), np.zeros(len(orders)))


def _divergence(mechanism: Mechanism, orders: np.ndarray) -> np.ndarray:
    """float64 [orders]: the larger one of both ways."""
    match mechanism:
        case Gaussian(sigma):
            return orders / (2 * sigma**2)
        case DiscreteGaussian(sigma):  # the mass of a Gaussian around `order` on the integers, beside that around 0
            around = np.arange(-math.ceil(12 * sigma) - 2, math.ceil(12 * sigma) + 3.0)
            off = np.round(orders) - orders
            masses = [logsumexp(-((around + shift) ** 2) / (2 * sigma**2)) for shift in (*off, 0.0)]
            return orders / (2 * sigma**2) + (np.array(masses[:-1]) - masses[-1]) / (orders - 1)
        case DiscreteLaplace(eps) | Selection(eps):  # randomised response
            yes, no = -math.log1p(math.exp(-eps)), -math.log1p(math.exp(eps))
            both = np.logaddexp(orders * yes + (1 - orders) * no, orders * no + (1 - orders) * yes)
            return both / (orders - 1)
        case SampledGaussian(sigma, q):
            x = np.arange(-14 * sigma, orders.max() + 14 * sigma, sigma / 20)
            density = -(x**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi)) + math.log(sigma / 20)
            loss = np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, math.log(q) + (2 * x - 1) / (2 * sigma**2))
            there = [logsumexp(density + order * loss) for order in orders]
            absent = [logsumexp(density + (1 - order) * loss) for order in orders]
            return np.maximum(there, absent) / (orders - 1)
        case BestOf(runs, candidates):
            return _best(runs, orders, np.max([_sum(spends, orders) for spends in candidates], axis=0))
    raise ValueError(f"{mechanism} has no divergence")


def _best(runs: Runs, orders: np.ndarray, one: np.ndarray) -> np.ndarray:
    match runs:
        case TruncatedNegativeBinomial(eta, gamma):
            again = (1 + eta) * ((1 - 1 / orders) * one + math.log(1 / gamma) / orders).min()
            found = one + again + math.log(_mean(eta, gamma)) / (orders - 1)
        case Poisson(mean):
            found = one + math.log(mean) / (orders - 1)
            for i, order in enumerate(orders):
                epsilon = math.log(order / (order - 1))
                logarithms = (orders - 1) * (one - epsilon) - np.log(orders - 1) + orders * np.log1p(-1 / orders)
                found[i] += mean * min(math.exp(min(0.0, logarithms.min())), math.sqrt(-math.expm1(-one.min())))
        case _:
            raise ValueError(f"{runs} is no distribution of the number of runs")
    return np.array([found[i:].min() for i in range(len(orders))])


def _mean(eta: float, gamma: float) -> float:
    """From the masses themselves."""
    last = 40 * (1 + abs(eta)) / gamma
    if last > MOST_RUNS:
        raise OverflowError("too many runs to add up")
    k = np.arange(1, math.ceil(last) + 1)
    logarithms = k * math.log1p(-gamma) + gammaln(k + eta) - gammaln(k + 1)
    masses = np.exp(logarithms - logarithms.max())
    return float(k @ masses / masses.sum())
