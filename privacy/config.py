"""The budget that a user states."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal

from errors import format_value, reject_unless, require
from privacy.accounting import Accountant
from privacy.mechanisms import Unit
from privacy.signing import private_key

# Of a noise multiplier. Float64 has the exact curve of Gaussians up to sqrt(rounds) / noise multiplier = 1e8: beyond that epsilon
# comes out below the truth, and from 1e-100 on it is an error.
LEAST_NOISE = 1e-6


@dataclass(kw_only=True)
class Privacy:
    """Exactly one of `epsilon` (a target) and `noise_multiplier` (fixed) is set; the other is computed."""

    epsilon: float | None = None  # the target: the release spends at most this
    noise_multiplier: float | None = None  # fixed noise, relative to the sensitivity
    delta: float | None = None  # None: a tenth of 1 / the number of units, see `delta_for`
    unit: Unit = Unit.image  # what is protected: one image, or all images of one user
    accountant: Accountant = Accountant.pld  # composes what was spent: pld is tight; rdp and prv are what papers used
    noise_seed: int | None = None  # None: from the operating system's entropy. A number voids the guarantee.
    class_counts_epsilon: float | None = None  # the share of dataset.class_counts=laplace
    selection_epsilon: float | None = (
        None  # set: eval.downstream chooses on the private images, not on held out samples, for this
    )
    signing_key: str | None = None  # a file with a private key, which signs the certificate

    def check(self) -> None:
        one = (self.epsilon is None) != (self.noise_multiplier is None)
        other = f"privacy.noise_multiplier={format_value(self.noise_multiplier)}"
        reject_unless(one, "privacy.epsilon", self.epsilon, f"with {other}, exactly one of the two must be set, the other null")
        require(self.epsilon is None or 0 < self.epsilon < 1e6, "privacy.epsilon", self.epsilon, "a finite number above 0")
        sigma = self.noise_multiplier
        allowed = f"a finite number above 0, at least {LEAST_NOISE:g} (for less no accountant is exact)"
        require(sigma is None or LEAST_NOISE <= sigma < 1e6, "privacy.noise_multiplier", sigma, allowed)
        inside = self.delta is None or 0 < self.delta < 1
        require(inside, "privacy.delta", self.delta, "above 0 and below 1, or null")
        for key in ("class_counts_epsilon", "selection_epsilon"):
            share = getattr(self, key)
            require(share is None or 1e-6 <= share < 1e6, f"privacy.{key}", share, "1e-6 or more and finite, or null")
        if self.signing_key is not None:
            private_key(self.signing_key)

    def delta_for(self, num_private: int) -> float:
        """The δ that is stated, or the smaller of 1 / (10 N) and N^-1.1 (from N = 10^10 on), rounded down to two digits.

        To publish one image in N outright, with probability N·δ, satisfies δ: see `caution`.
        """
        if self.delta is not None:
            return self.delta
        down = Context(prec=2, rounding=ROUND_FLOOR)
        return float(min(down.divide(1, 10 * num_private), down.create_decimal_from_float(num_private**-1.1)))


def caution(delta: float, size: int, unit: Unit = Unit.image) -> str | None:
    """What a large δ allows on `size` units; None where N·δ is 0.1 or less.

    A mechanism that publishes one unit, picked at random, with probability p shows any given one with probability p/N.
    """
    article = "an image" if unit is Unit.image else "all images of a user"
    exactly = Decimal(repr(delta)) * size  # of the decimal number that is stated
    if exactly >= 1:
        return f"delta={delta:g} is not below 1/{size}: it allows to publish {article} outright"
    if exactly > Decimal("0.1"):
        probability = f"{float(exactly):.2g}"
        allows = f"a mechanism that publishes one {unit.value} outright with probability {probability} would satisfy this delta"
        return f"delta={delta:g} times {size} {unit.plural} is {probability}: {allows}"
    return None
