"""What one example adds to the sum of clipped gradients, measured: more than the clipping norm refutes any claim.

No canary shows a clip that is 1 % too long; its noise hides it. But a norm is no secret of a run, so it is measured instead:
gradients of one large tensor, chosen to be hard to sum, through the method's own engines and optimizer.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.dataset import Dataset
from dp_finetune.dpsgd import DPSGD
from dp_finetune.engines import ENGINES, EngineName

SIDE = 4096  # of a matrix of 16.8 million weights: a sum of equal squares in float32 has lost 1 % by then


@dataclass
class Slopes:
    """Views whose loss is linear in the weights W [out, in] of a linear layer: its gradient is `errors` ⊗ `inputs`."""

    inputs: torch.Tensor  # [B·K, in]
    errors: torch.Tensor  # [B·K, out]
    examples: int = 1

    @property
    def augmult(self) -> int:
        return len(self.inputs) // self.examples

    def part(self, rows: slice, examples: int = 1) -> Slopes:
        return Slopes(self.inputs[rows], self.errors[rows], examples)

    def losses(self, network: Any, bfloat16: bool = False) -> torch.Tensor:
        return (network(self.inputs) * self.errors).sum(1)


def largest_contribution(method: DPSGD, dataset: Dataset, device: torch.device, side: int = SIDE) -> float:
    """The largest ‖what one example adds‖ / C over hard gradients, in float64: at most 1 where clipping is what is claimed."""
    network = nn.Linear(side, side, bias=False, device=device)
    weight: Any = network.weight
    kinds = list(ENGINES) if method.gradient_engine is EngineName.auto else [method.gradient_engine]
    largest = 0.0
    for kind, views in itertools.product(kinds, {method.augmult, 2}):  # one view is summed in a way of its own
        engine = ENGINES[kind](network, views, views)
        optimizer = method.private_optimizer(engine.parameters, 1.0, dataset)
        for inputs, errors in _hard(side, method.max_grad_norm):
            inputs, errors = (x.to(device).expand(views, side) for x in (inputs, errors))
            engine(Slopes(inputs, errors))
            optimizer.signal_skip_step(True)  # clip and add: no noise, no step
            optimizer.step()
            added = float(torch.linalg.vector_norm(weight.summed_grad.double()))
            ratio = added / method.max_grad_norm
            largest = max(largest, ratio if math.isfinite(ratio) else sys.float_info.max)
            optimizer.zero_grad()
            weight.summed_grad = None
    return largest


def _hard(side: int, clip: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(inputs, errors) [side] each: equal squares, whose sum stops growing in float32; a few large before many small; random
    ones; just above the clipping norm, where a factor rounded up is not below 1; and squares that overflow."""
    ones, few = torch.ones(side), torch.full((side,), 0.014)
    few[0] = 1.0
    rng = torch.Generator().manual_seed(0)
    yield ones, ones
    yield ones, few
    yield torch.randn(side, generator=rng), torch.randn(side, generator=rng)
    yield ones, ones * (clip / side * (1 + 1e-6))
    yield ones, ones * 1e30
