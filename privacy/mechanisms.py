"""What a run may do to private data: mechanisms on queries of sensitivity 1, and the spends that name their use.

Sensitivity is under adding or removing one unit (`Unit.neighbouring`). Mechanisms are public facts: they hold no data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from privacy.selection import Runs


class Unit(Enum):
    """What a guarantee protects: of two datasets that it compares, one has a unit more than the other."""

    image = "image"
    user = "user"  # all images of one person, however many they are

    @property
    def plural(self) -> str:
        return f"{self.value}s"

    @property
    def neighbouring(self) -> str:
        """As certificates and plans say it."""
        if self is Unit.image:
            return "add or remove one image: an image is replaced by none, and the public number of images stays"
        return "add or remove all images of one user: a user is replaced by none, and the public number of users stays"


@dataclass(frozen=True)
class Mechanism:
    @property
    def kind(self) -> str:
        return _KINDS[type(self)]

    def to_dict(self) -> dict[str, Any]:
        return {"mechanism": self.kind, **asdict(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Mechanism:
        fields = dict(values)
        return {kind: cls for cls, kind in _KINDS.items()}[fields.pop("mechanism")]._of(fields)

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> Mechanism:
        return cls(**fields)


@dataclass(frozen=True)
class Gaussian(Mechanism):
    """N(0, sigma^2) on every coordinate; L2 sensitivity 1."""

    noise_multiplier: float


@dataclass(frozen=True)
class DiscreteGaussian(Mechanism):
    """Integer noise with P(x) ∝ exp(-x²/2σ²) (Canonne, Kamath & Steinke 2020) on a histogram: one unit moves one bin by 1."""

    noise_multiplier: float


@dataclass(frozen=True)
class SampledGaussian(Mechanism):
    """The Gaussian mechanism on a Poisson sample: every unit enters with probability `sample_rate`."""

    noise_multiplier: float
    sample_rate: float


@dataclass(frozen=True)
class DiscreteLaplace(Mechanism):
    """Integer noise with P(x) ∝ exp(-|x|·epsilon) on a histogram: one unit moves one bin by 1, or several by 1 together."""

    epsilon: float


@dataclass(frozen=True)
class Selection(Mechanism):
    """A choice between candidates by permute-and-flip (McKenna & Sheldon 2020): one unit moves no score by more than 1."""

    epsilon: float


@dataclass(frozen=True)
class DeclaredPublic(Mechanism):
    """An exact statistic that the user declares to be public knowledge: nothing is spent, but the certificate says so."""


@dataclass(frozen=True)
class NonPrivate(Mechanism):
    """The data themselves: infinite epsilon."""


@dataclass(frozen=True)
class BestOf(Mechanism):
    """The run with the highest score, of K runs that each take a candidate at random: see `privacy.selection`.

    `candidates`: what a run of each spends, its score too; all are equally likely.
    """

    runs: Runs
    candidates: tuple[tuple[Spend, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        each = [[spend.to_dict() for spend in spends] for spends in self.candidates]
        return {"mechanism": self.kind, **self.runs.to_dict(), "candidates": each}

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> Mechanism:
        each = tuple(tuple(map(Spend.from_dict, spends)) for spends in fields.pop("candidates"))
        return cls(Runs.from_dict(fields), each)


_KINDS: dict[type[Mechanism], str] = {
    Gaussian: "gaussian",
    DiscreteGaussian: "discrete_gaussian",
    SampledGaussian: "sampled_gaussian",
    DiscreteLaplace: "discrete_laplace",
    Selection: "permute_and_flip",
    BestOf: "best_of",
    DeclaredPublic: "declared_public",
    NonPrivate: "non_private",
}


@dataclass(frozen=True)
class Spend:
    """`count` uses of one mechanism for one purpose, e.g. five rounds of votes."""

    purpose: str
    mechanism: Mechanism
    count: int = 1

    def to_dict(self) -> dict[str, Any]:
        return {"purpose": self.purpose, "count": self.count, **self.mechanism.to_dict()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Spend:
        fields = dict(values)
        return Spend(fields.pop("purpose"), count=fields.pop("count"), mechanism=Mechanism.from_dict(fields))
