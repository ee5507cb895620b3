"""What a network costs: parameters, FLOPs and activations of one image.

They are counted on a network of shapes without weights. Making one takes diffusers, seconds of imports, so those of the networks
that ship and of the papers' are in a table, which `python -m scripts.costs` writes.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.api import Denoiser

TABLE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class NetworkCosts:
    parameters: int
    flops: int  # of a forward pass
    activation_bytes: int  # that a backward pass needs kept


def count(denoiser: Denoiser) -> NetworkCosts:
    """Of a denoiser whose network is on the meta device, all of it trained."""
    denoiser.network.requires_grad_(False)
    flops = denoiser.flops()["forward"]
    denoiser.network.requires_grad_(True)
    parameters = sum(p.numel() for p in denoiser.network.parameters())
    return NetworkCosts(parameters, flops, denoiser.activation_bytes())


def look_up(shape: Mapping[str, Any], otherwise: Callable[[], NetworkCosts]) -> NetworkCosts:
    """Of the network that `shape` describes in full, as JSON may write it: from the table, or counted once in a process."""
    key = key_of(shape)
    if key not in _known():
        _known()[key] = otherwise()
    return _known()[key]


def key_of(shape: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _known() -> dict[str, NetworkCosts]:
    return {costs.pop("network"): NetworkCosts(**costs) for costs in json.loads(TABLE.read_text()).values()}
