"""A run's main numbers among all that were measured, whichever classifier and space they are of."""

from __future__ import annotations

from typing import Any


def accuracy(metrics: dict[str, Any], kind: str = "accuracy") -> float | None:
    """Of the first classifier trained on the samples, 0 to 1; `kind`: accuracy or ensemble_accuracy."""
    found = (value for name, value in metrics.items() if name.endswith(f"/{kind}") and not name.startswith("discriminator/"))
    return next(found, None)


def distance_name(metrics: dict[str, Any]) -> str | None:
    """The first Fréchet distance; FID in Inception's space."""
    return next((name for name in metrics if name.startswith(("frechet/", "fid/"))), None)


def distance(metrics: dict[str, Any]) -> float | None:
    name = distance_name(metrics)
    return None if name is None else metrics[name]


def shown_epsilon(value: Any) -> str:
    """`10`, `0.561`, `∞` (which files write "inf")."""
    return "∞" if float(value) == float("inf") else f"{float(value):.3g}"
