"""Floating-point operations: what a network takes, and what this machine gives."""

from __future__ import annotations

import functools
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network_flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Of one forward pass of one image (H, W, C) through a network on the meta device. A training step takes three times that."""
    height, width, channels = shape
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(1, channels, height, width, device="meta"))
    return counter.get_total_flops()


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
