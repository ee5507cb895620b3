"""What networks cost: their parameters, the FLOPs of a pass, and the bytes that it keeps.

They are counted on shapes without weights. That takes diffusers for a U-Net and PyTorch's compiler for FLOPs, seconds of imports,
so what the public networks cost, and the judges at their sizes, is in a table, which `python -m scripts.costs` writes.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from models.api import Denoiser
from models.ema import trainable

TABLE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class NetworkCosts:
    """What a denoiser's network costs."""

    parameters: int
    flops: int  # of a forward pass of one image
    activation_bytes: int  # that a backward pass of one image needs kept


@dataclass(frozen=True)
class TrainingCosts:
    """What it costs to train a denoiser's network, or a part of it."""

    parameters: int
    backward_flops: int  # of one image
    activation_bytes: int  # as above


@dataclass(frozen=True)
class PassCosts:
    """What a forward pass of a number of images costs."""

    flops: int
    bytes: int  # of the tensors that are alive at one time, at most
    kept: int  # bytes of what its layers give, which a backward pass needs


SECTIONS: dict[str, type[Any]] = {"networks": NetworkCosts, "trainings": TrainingCosts, "passes": PassCosts}  # of the table
Costs = TypeVar("Costs", NetworkCosts, TrainingCosts, PassCosts)


def count(denoiser: Denoiser) -> NetworkCosts:
    """Counts the costs of a denoiser, whose network is on the meta device; all of it is trained."""
    denoiser.network.requires_grad_(False)
    flops = denoiser.flops()["forward"]
    denoiser.network.requires_grad_(True)
    parameters = sum(p.numel() for p in denoiser.network.parameters())
    return NetworkCosts(parameters, flops, denoiser.activation_bytes())


def count_training(denoiser: Denoiser, prepare: Callable[[Any], None]) -> TrainingCosts:
    """Counts the costs of training what `prepare` leaves trainable of a new denoiser, whose network is on the meta device."""
    prepare(denoiser.network)
    parameters = sum(p.numel() for p in trainable(denoiser.network).values())
    kept = denoiser.activation_bytes()
    return TrainingCosts(parameters, denoiser.flops()["backward"], kept)


def is_own(component: object) -> bool:
    """Whether its class is one of this program. An extension may make another network of the same description."""
    return type(component).__module__.partition(".")[0] in ("dp_finetune", "models")


def look_up(described: Mapping[str, Any], otherwise: Callable[[], Costs]) -> Costs:
    """Of what is described in full, as JSON may write it: from the table, or counted once in a process."""
    known, key = _known(), key_of(described)
    if key not in known:
        known[key] = otherwise()
    return known[key]


def key_of(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def counting() -> Iterator[dict[str, Any]]:
    """Within, nothing is known: what is looked up is counted, and kept by its key in what this yields."""
    known, kept = _known(), dict(_known())
    known.clear()
    try:
        yield known
    finally:
        known.clear()
        known.update(kept)


@functools.cache
def _known() -> dict[str, Any]:
    table = json.loads(TABLE.read_text())
    return {costs.pop("of"): kind(**costs) for section, kind in SECTIONS.items() for costs in table[section].values()}
