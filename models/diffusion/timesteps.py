"""Which timesteps are trained: a mixture of uniform distributions (Ghalebikesabi et al. 2023, §4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from errors import require


@dataclass(kw_only=True)
class Interval:
    """Timesteps low … high - 1, drawn with this weight."""

    weight: float
    low: int
    high: int


def check_mixture(key: str, mixture: Sequence[Interval], num_steps: int) -> None:
    """Raise InputError unless the weights sum to 1 and the half-open intervals are ordered inside 0 … num_steps."""
    require(len(mixture) > 0, key, mixture, "a list of at least one interval")
    total = sum(interval.weight for interval in mixture)
    weighted = all(interval.weight > 0 for interval in mixture) and abs(total - 1) < 1e-9
    require(weighted, key, f"weights that sum to {total:g}", "intervals whose weights are above 0 and sum to 1")
    edge = 0
    for interval in mixture:
        interval_text = f"[{interval.low}, {interval.high})"
        require(
            edge <= interval.low < interval.high <= num_steps,
            key,
            interval_text,
            f"ordered intervals of low < high within 0 … {num_steps}",
        )
        edge = interval.high


def draw_timesteps(mixture: Sequence[Interval], count: int, rng: torch.Generator) -> torch.Tensor:
    """int64 [count], by inverting the mixture's distribution function."""
    device = rng.device
    weights = np.array([interval.weight for interval in mixture])
    edges = torch.tensor(np.cumsum(weights)[:-1], dtype=torch.float32, device=device)
    which = torch.bucketize(torch.rand(count, generator=rng, device=device), edges, right=True)
    low = torch.tensor([interval.low for interval in mixture], device=device)[which]
    width = torch.tensor([interval.high - interval.low for interval in mixture], device=device)[which]
    return low + (torch.rand(count, generator=rng, device=device) * width).long().clamp(max=width - 1)
