"""`dataset=mnist`, `fashion_mnist`, `cifar10`, `svhn`: official files, with another dataset as the public counterpart."""

from __future__ import annotations

from dataclasses import dataclass

from data.datasets.counterpart import WithCounterpart
from data.datasets.official import Official


@dataclass(kw_only=True)
class Published(Official, WithCounterpart):
    """Private: the training split; see `Official` for the settings."""
