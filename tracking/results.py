"""A run's main numbers among all that were measured, whichever classifier and space they are of."""

from __future__ import annotations

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
