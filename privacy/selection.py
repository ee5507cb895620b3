"""How many runs the best is taken of, and what that costs: Papernot & Steinke (2022), arXiv:2110.03620.

The number of runs K is drawn before the first of them, from a distribution that everybody knows. Nobody learns K, nor anything
of the other runs. The bounds are on Rényi divergences of the best run's output, its score included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import brentq


@dataclass(frozen=True)
class Runs:
    """A distribution of K."""

    @property
    def mean(self) -> float:
        raise NotImplementedError

    def masses(self) -> Iterator[tuple[int, float]]:
        """k and P[K = k], for k from the least on; without end."""
        raise NotImplementedError

    def generating(self, z: float) -> float:
        """E[z^K], for 0 <= z <= 1."""
        raise NotImplementedError

    def best(self, orders: np.ndarray, rdp: np.ndarray) -> np.ndarray:
        """Rényi DP of the best of K runs at the `orders` > 1, ascending, where one run has `rdp` there."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        return {"distribution": _NAMES[type(self)], **asdict(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Runs:
        fields = dict(values)
        return {name: cls for cls, name in _NAMES.items()}[fields.pop("distribution")](**fields)

    def quantile(self, level: float) -> int:
        """The least k with P[K <= k] > level: of a uniform level in (0, 1), a draw of K, exact but for rounding of 2^-52."""
        below = 0.0
        for k, mass in self.masses():
            below += mass
            if below > level or (mass < 1e-18 and below > 0.5):  # of the rest, float64 knows nothing
                return k
        raise AssertionError


@dataclass(frozen=True)
class TruncatedNegativeBinomial(Runs):
    """Definition 1: P[K = k] ∝ (1 - gamma)^k · Γ(k + eta) / k!, for k >= 1. eta = 1 is geometric, eta = 0 logarithmic."""

    eta: float  # > -1
    gamma: float  # in (0, 1)

    def __post_init__(self) -> None:
        if not (-1 < self.eta < math.inf and 0 < self.gamma < 1):
            raise ValueError(f"{self}: eta must be above -1 and gamma between 0 and 1")

    @classmethod
    def of_mean(cls, mean: float, eta: float) -> TruncatedNegativeBinomial:
        """For 1 < mean."""
        if eta == 1:
            return cls(eta, 1 / mean)

        def excess(log_odds: float) -> float:
            return math.log(cls(eta, 1 / (1 + math.exp(log_odds))).mean / mean)

        low, high = -1.0, 1.0
        while excess(low) > 0:
            low *= 2
        while excess(high) < 0:
            high *= 2
        return cls(eta, 1 / (1 + math.exp(brentq(excess, low, high, xtol=1e-14))))

    @cached_property
    def mean(self) -> float:  # type: ignore[override]
        if self.eta == 0:
            return (1 / self.gamma - 1) / -math.log(self.gamma)
        return self.eta * (1 / self.gamma - 1) / -math.expm1(self.eta * math.log(self.gamma))

    def masses(self) -> Iterator[tuple[int, float]]:
        k, rest = 1, 1 - self.gamma
        mass = rest / -math.log(self.gamma) if self.eta == 0 else rest * self.eta / math.expm1(-self.eta * math.log(self.gamma))
        while True:
            yield k, mass
            mass *= rest * (k + self.eta) / (k + 1)
            k += 1

    def generating(self, z: float) -> float:
        left = math.log1p(-(1 - self.gamma) * z)
        if self.eta == 0:
            return left / math.log(self.gamma)
        return math.expm1(-self.eta * left) / math.expm1(-self.eta * math.log(self.gamma))

    def best(self, orders: np.ndarray, rdp: np.ndarray) -> np.ndarray:
        """Theorem 2; λ̂ is chosen among the orders."""
        once_more = np.min((1 - 1 / orders) * rdp - math.log(self.gamma) / orders)
        return _monotone(rdp + (1 + self.eta) * once_more + math.log(self.mean) / (orders - 1))


@dataclass(frozen=True)
class Poisson(Runs):
    """K may be 0: then nothing is released."""

    expected: float

    def __post_init__(self) -> None:
        if not 1 <= self.expected < math.inf:  # below 1 the logarithm in the bound would be a discount
            raise ValueError(f"{self}: expected must be 1 or more")

    @property
    def mean(self) -> float:
        return self.expected

    def masses(self) -> Iterator[tuple[int, float]]:
        k, mass = 0, math.exp(-self.expected)
        while True:
            yield k, mass
            k += 1
            mass *= self.expected / k

    def generating(self, z: float) -> float:
        return math.exp(self.expected * (z - 1))

    def best(self, orders: np.ndarray, rdp: np.ndarray) -> np.ndarray:
        """Theorem 6, with the largest ε̂ that it allows at each order."""
        deltas = np.array([delta_of(orders, rdp, math.log1p(1 / (order - 1))) for order in orders])
        return _monotone(rdp + self.mean * deltas + math.log(self.mean) / (orders - 1))


_NAMES: dict[type[Runs], str] = {TruncatedNegativeBinomial: "truncated_negative_binomial", Poisson: "poisson"}


def delta_of(orders: np.ndarray, rdp: np.ndarray, epsilon: float) -> float:
    """A delta at which what has this Rényi DP is (epsilon, delta)-DP: Canonne, Kamath & Steinke (2020), Prop. 12; and no larger
    than a total variation may be (Bretagnolle & Huber 1979), as a divergence grows with its order."""
    logarithms = (orders - 1) * (rdp - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    return float(min(math.exp(min(0.0, logarithms.min())), math.sqrt(-math.expm1(-rdp.min()))))


def _monotone(rdp: np.ndarray) -> np.ndarray:
    """A divergence of a lower order is no larger."""
    return np.minimum.accumulate(rdp[::-1])[::-1]
