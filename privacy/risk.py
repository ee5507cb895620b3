"""What epsilon and delta allow, in an attacker's terms: who can tell from a release whether one unit was among the private ones.

The attacker knows the mechanisms, and everything but whether this unit was there. The bounds hold for any such attack, and follow
from the whole curve delta(epsilon) of the composition, of which the certificate's epsilon is one point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from privacy.accounting import Accountant, compose_curve
from privacy.mechanisms import Spend, Unit

FALSE_POSITIVES = (0.001, 0.01, 0.1)
PRIORS = (0.5, 0.1)


@dataclass(frozen=True)
class TradeOff:
    """float64 [n] `epsilons`, ascending, and `deltas`: at each of these a mechanism is (epsilon, delta)-DP."""

    epsilons: np.ndarray
    deltas: np.ndarray
    accountant: Accountant = Accountant.pld  # that they come from

    @classmethod
    def of(cls, spends: Sequence[Spend], delta: float) -> TradeOff:
        """`delta` only says which composition to read off: that of the certificate's epsilon."""
        return cls(*compose_curve(spends, delta))

    def true_positives(self, false_positives: float) -> float:
        """The highest rate of a test with that rate of false positives, above 0 (Dong, Roth & Su 2022, Prop. 2.5)."""
        with np.errstate(over="ignore"):
            lower = 1 - self.deltas - np.exp(self.epsilons) * false_positives
        upper = np.exp(-self.epsilons) * (1 - self.deltas - false_positives)
        return 1 - max(0.0, float(lower.max()), float(upper.max()))

    @property
    def advantage(self) -> float:
        """The most that true positives exceed false ones by, in 0 … 1; at epsilon = 0 it is delta itself."""
        return float(np.min(1 - (1 - self.deltas) * 2 * expit(-self.epsilons)))

    def posterior(self, prior: float, but_for: float) -> float:
        """The highest belief that a unit was there, from `prior`, but for a probability of `but_for` that a release tells more.

        A privacy loss exceeds l with probability at most delta / (1 - e^(epsilon - l)), for every epsilon < l (Kasiviswanathan
        & Smith 2014); where it does not, odds grow by e^l at most.
        """
        usable = self.deltas < but_for
        if not usable.any():
            return 1.0
        loss = float(np.min(self.epsilons[usable] - np.log1p(-self.deltas[usable] / but_for)))
        return prior / (prior + (1 - prior) * math.exp(-loss))


def risk(spends: Sequence[Spend], delta: float) -> dict[str, Any]:
    """For plan and certificate. The accountant is named: it is `pld` whichever one the epsilon is from, but for huge noise or
    epsilon, where it is `rdp`."""
    curve = TradeOff.of(spends, delta)
    return {
        "accountant": curve.accountant.value,
        "advantage": curve.advantage,
        "true_positive_rate": {f"{rate:g}": curve.true_positives(rate) for rate in FALSE_POSITIVES},
        "posterior": {f"{prior:g}": curve.posterior(prior, delta) for prior in PRIORS},
        "posterior_but_for": delta,
    }


def in_words(found: dict[str, Any], unit: Unit) -> str:
    """Two sentences, for readers who are no engineers."""
    one, many = ("image", "images that were not") if unit is Unit.image else ("person", "people who were not")
    rates, beliefs = found["true_positive_rate"], found["posterior"]
    return (
        f"Somebody who knows everything but whether one {one} was among the private data, and wrongly points at 1 % of the "
        f"{many}, finds up to {percent(rates['0.01'])} of those that were (at 10 %: {percent(rates['0.1'])}; "
        f"at 0.1 %: {percent(rates['0.001'])}). "
        f"Where they thought it as likely as not before, they are up to {percent(beliefs['0.5'])} sure afterwards (from 10 %: "
        f"{percent(beliefs['0.1'])}), but for a probability of {found['posterior_but_for']:g}, for which a belief may be more "
        "than e^ε alone would make of it."
    )


def format_epsilon(value: Any) -> str:
    """Rounded up to four digits, as it is a bound; infinity is "inf" in files.

    >>> format_epsilon(10.0), format_epsilon(0.56132), format_epsilon("inf")
    ('10', '0.5614', '∞')
    """
    return "∞" if float(value) == math.inf else f"{rounded_up(float(value), 4):g}"


def rounded_up(value: float, digits: int) -> float:
    """To so many significant digits, but for what float64 itself rounds.

    >>> rounded_up(2.0001, 3), rounded_up(0.1 + 0.2, 3), rounded_up(99.99, 3), rounded_up(123456.0, 3), rounded_up(0.0, 3)
    (2.01, 0.3, 100.0, 124000.0, 0.0)
    """
    if value <= 0:
        return value
    exponent = math.floor(math.log10(value)) - digits + 1
    return float(f"{math.ceil(value / 10.0**exponent * (1 - 1e-12))}e{exponent}")


def percent(share: float) -> str:
    """Rounded up to a tenth of a percent: these are bounds. "100 %" is said of nothing less."""
    tenths = math.ceil(share * 1000 - 1e-9)
    if tenths >= 1000 and share < 1:
        return "nearly 100 %"
    return f"{tenths / 10:g} %"
