"""A run's main numbers among all that were measured, whichever classifier and space they are of."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

OTHERS = ("discriminator/", "membership/")  # have an accuracy and an auc of their own
BESIDE = ("_n", "_floor")  # what stands beside a distance


def accuracy(metrics: dict[str, Any], kind: str = "accuracy") -> float | None:
    """Of the first classifier trained on the samples, 0 to 1; `kind`: accuracy, balanced_accuracy, ensemble_accuracy or auc."""
    found = (value for name, value in metrics.items() if name.endswith(f"/{kind}") and not name.startswith(OTHERS))
    return next(found, None)


def distance_name(metrics: dict[str, Any]) -> str | None:
    """The first Fréchet distance, to all classes together; FID in Inception's space."""
    found = (name for name in metrics if name.startswith(("frechet/", "fid/")) and "/class=" not in name)
    return next((name for name in found if not name.endswith(BESIDE)), None)


def distance(metrics: dict[str, Any]) -> float | None:
    name = distance_name(metrics)
    return None if name is None else metrics[name]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation (of n - 1) where there are several."""
    return fmean(values), stdev(values) if len(values) > 1 else None


def counted(seeds: Sequence[Any]) -> str:
    """How many runs there are, by their seeds: `3 seeds`, or `3 runs` where two have the same."""
    of = "seed" if len(set(seeds)) == len(seeds) else "run"
    return f"{len(seeds)} {of}{'s' * (len(seeds) > 1)}"
