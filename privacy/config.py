"""The budget that a user states."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Context, Decimal
from enum import Enum
from typing import Any

from errors import format_value, reject_unless, require
from privacy.accounting import Accountant
from privacy.mechanisms import Unit
from privacy.selection import Poisson, Runs, TruncatedNegativeBinomial
from privacy.signing import private_key

MOST_POISSON = 700  # expected runs: float64 has no probability of 0 runs for more

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
            private_key("privacy.signing_key", self.signing_key)

    def delta_for(self, num_private: int) -> float:
        """The δ that is stated, or the smaller of 1 / (10 N) and N^-1.1 (from N = 10^10 on), rounded down to two digits.

        To publish one image in N outright, with probability N·δ, satisfies δ: see `caution`.
        """
        if self.delta is not None:
            return self.delta
        down = Context(prec=2, rounding=ROUND_FLOOR)
        return float(min(down.divide(1, 10 * num_private), down.create_decimal_from_float(num_private**-1.1)))


class HowMany(Enum):
    """The distribution of K, the number of runs."""

    truncated_negative_binomial = "truncated_negative_binomial"  # at least 1
    poisson = "poisson"  # may be 0: then nothing is released


class ScoredOn(Enum):
    private = "private"  # images, with noise, which is a spend of each run
    public = "public"  # images, for nothing


@dataclass(kw_only=True)
class PrivateSelection:
    """Of the settings of a sweep, for a price that the certificate holds: see docs/selection.md."""

    name: str = "private"
    distribution: HowMany = HowMany.truncated_negative_binomial  # of K, the number of runs; with poisson K may be 0
    expected_runs: float | None = None  # the mean of K; null: twice the number of candidates
    eta: float = 1.0  # of the truncated negative binomial: 0 is logarithmic, 1 geometric; the larger, the less K varies
    score: ScoredOn = ScoredOn.private  # accuracy on these of eval.downstream's classifier, trained on the samples
    score_noise: float = 0.01  # its standard deviation, on an accuracy in 0 … 1
    candidates: list[Any] = field(default_factory=list)  # what differs between them: the program takes it from the sweep

    def check(self) -> None:
        poisson = self.distribution is HowMany.poisson
        mean, allowed = self.expected_runs, "finite and 1 or more, or null" if poisson else "finite and above 1, or null"
        enough = mean is None or (1 <= mean < 1e6 if poisson else 1 < mean < 1e6)
        require(enough, "selection.expected_runs", mean, allowed)
        require(-0.9 <= self.eta <= 10, "selection.eta", self.eta, "from -0.9 to 10")
        require(1e-6 <= self.score_noise < 1, "selection.score_noise", self.score_noise, "1e-6 or more and below 1")

    @property
    def runs(self) -> Runs:
        mean = 2.0 * len(self.candidates) if self.expected_runs is None else self.expected_runs
        if self.distribution is HowMany.poisson:
            require(
                mean <= MOST_POISSON,
                "selection.expected_runs",
                mean,
                f"at most {MOST_POISSON} with selection.distribution=poisson",
            )
            return Poisson(mean)
        return TruncatedNegativeBinomial.of_mean(mean, self.eta)


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
