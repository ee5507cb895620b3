"""Floating-point operations: what a network takes, and what this machine gives. Bytes of a pass are counted alike."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.costs import PassCosts, look_up


def pass_costs(network: nn.Module, shape: tuple[int, int, int], rows: int) -> PassCosts:
    """Of `rows` images (H, W, C) through a network on the meta device. A training step takes three times its FLOPs."""
    return look_up(described_pass(network, shape, rows), lambda: count_pass(network, shape, rows))


def count_pass(network: nn.Module, shape: tuple[int, int, int], rows: int) -> PassCosts:
    """What the table of `models.costs` has."""
    (height, width, channels), kept = shape, 0

    def add(_: Any, __: Any, output: torch.Tensor) -> None:
        nonlocal kept
        kept += output.nbytes

    layers = [module for module in network.modules() if not any(True for _ in module.children())]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    network.eval()
    flops, alive = forward_cost(lambda: network(torch.empty(rows, channels, height, width, device="meta")))
    for hook in hooks:
        hook.remove()
    return PassCosts(flops, alive, kept)


def described_pass(network: nn.Module, shape: tuple[int, int, int], rows: int) -> dict[str, Any]:
    """All that its costs follow from."""
    return {"network": str(network), "image": shape, "rows": rows}


def forward_cost(call: Callable[[], Any]) -> tuple[int, int]:
    """FLOPs of what `call` does on the meta device, and bytes of the tensors that are alive at one time, at most."""
    from torch.utils.flop_counter import FlopCounterMode  # it brings PyTorch's compiler

    with FlopCounterMode(display=False) as counter, _Alive() as alive, torch.inference_mode():
        call()
    return counter.get_total_flops(), alive.peak


def alive_bytes(call: Callable[[], Any]) -> int:
    """Of the tensors that `call` makes, alive at one time, at most; with gradients where they are on."""
    with _Alive() as alive:
        call()
    return alive.peak


class _Alive(TorchDispatchMode):
    """Follows what is allocated from where it is made to where it is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and id(storage) not in given:  # no view, and not in place
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, count: int) -> None:
        self._now += count
        self.peak = max(self.peak, self._now)


@functools.cache
def flops_per_second(device: torch.device) -> float:
    """Measured in a few hundredths of a second on convolutions of middling width: good to a factor of two."""
    x, weight = torch.zeros(32, 64, 16, 16, device=device), torch.zeros(64, 64, 3, 3, device=device)
    each, best = 2 * 32 * 64 * 16 * 16 * 64 * 9, float("inf")
    with torch.inference_mode():
        for _ in range(5):
            started = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started)
    return each / best
