"""Opacus' DPOptimizer with the run's own noise, clipping in float64, and a rule for gradients that are not numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from dp_finetune.per_example import OuterProducts, dense
from privacy.noise import NoiseStream
from tracking import ranks

SLACK = 1e-9  # above what float64 rounds in a norm of 10^9 numbers, and in a sum of 10^6 examples
BLOCK = {"cpu": 1 << 16, "cuda": 1 << 24}  # numbers that are held in float64 at a time: what a cache holds; few kernel calls


class PrivateOptimizer(DPOptimizer):
    """Clips `p.grad_sample` [B, *shape] to L2 norm C, sums, adds N(0, (sigma C)²) and divides by the expected batch size.

    Norms, products, their sum and the noise are float64, and what is published is cast once, to the parameter's type. A norm
    in float32 falls short by 1 % in a tensor of 20 million weights (pytorch#68326), and a sum in float32 rounds what the others
    add, depending on one. So an example moves the sum by C at most, by less than 1e-9 C in all that is rounded.

    A linear layer that saw one row of each example hands over `OuterProducts` instead: norms and sum are those of the products,
    in float64 too, and no gradient of an example is ever written down (book-keeping, Bu et al. 2023, where it is exact).

    An example whose gradient is not finite contributes zero: it can neither poison the sum nor stop the run, and its
    contribution is within C like any other. `noise` is the stream of the current step; set it before the last `step()`.
    """

    noise: NoiseStream | None = None
    dense: list[tuple[Any, list[int]]]  # parameters whose gradients are tensors, and the order of their dimensions in memory
    products: list[Any]  # the other parameters
    total: torch.Tensor  # float64 [all weights]: the sum so far, which every `p.summed_grad` is a view of; the dense ones first

    @torch.no_grad()
    def clip_and_accumulate(self) -> None:
        if self.params[0].summed_grad is None:
            self._start_sum()
        if len(self.params[0].grad_sample) == 0:  # an empty batch, or the end of one
            return
        grads = [_flat(dense(p.grad_sample), order) for p, order in self.dense]
        products = self.products
        if not all(isinstance(p.grad_sample, OuterProducts) for p in products):
            raise ValueError("the passes of a step hand over the gradients of a layer in two forms")
        parts = [torch.linalg.vector_norm(block, dim=1) for _, block in _blocks(grads)]
        parts += [p.grad_sample.norms() for p in products]
        norms = torch.stack(parts).norm(dim=0)  # [B]
        finite = torch.isfinite(norms)
        factor = torch.where(finite, (self.max_grad_norm / (norms * (1 + SLACK))).clamp(max=1.0), 0.0)
        whole = bool(finite.all())
        for columns, block in _blocks(grads):
            block = block if whole else torch.where(finite[:, None], block, 0.0)
            self.total[columns].addmv_(block.T, factor)
        for p in products:
            p.summed_grad += p.grad_sample.weighted_sum(factor)

    def _start_sum(self) -> None:
        self.dense = [(p, _memory_order(p.grad_sample)) for p in self.params if isinstance(p.grad_sample, torch.Tensor)]
        self.products = [p for p in self.params if isinstance(p.grad_sample, OuterProducts)]
        others = [(p, [0, 1]) for p in self.products]
        self.total = torch.zeros(sum(p.numel() for p in self.params), dtype=torch.float64, device=self.params[0].device)
        parts = self.total.split([p.numel() for p, _ in (*self.dense, *others)])
        for (p, order), part in zip((*self.dense, *others), parts, strict=True):
            p.summed_grad = part.view([p.shape[d] for d in order]).permute(np.argsort(order).tolist())

    @property
    def accumulated_iterations(self) -> int:
        """One pass at a time is added to the sum."""
        return 1

    @property
    def grad_samples(self) -> list[Any]:
        """As they are: the parent's would have every gradient whole."""
        return [p.grad_sample for p in self.params]

    def add_noise(self) -> None:
        """Every process sums the clipped gradients of all and adds the same noise, so it enters once."""
        assert self.noise is not None
        for p in self.params:
            total = p.summed_grad.contiguous()
            ranks.sum_over_ranks([total])
            noise = torch.from_numpy(self.noise.gaussian(self.noise_multiplier * self.max_grad_norm, p.numel()))
            p.grad = (total + noise.to(p.device).reshape(p.shape)).to(p.dtype)
        self.noise = None  # one stream, one step


def _memory_order(gradients: torch.Tensor) -> list[int]:
    """Dimensions of a parameter as its gradients [B, *shape] have them in memory: sums over them then read what lies there."""
    return sorted(range(gradients.dim() - 1), key=lambda d: -gradients.stride(1 + d))


def _flat(gradients: torch.Tensor, order: list[int]) -> torch.Tensor:
    return gradients.permute(0, *(1 + d for d in order)).flatten(1)


def _blocks(gradients: list[torch.Tensor]) -> Iterator[tuple[slice, torch.Tensor]]:
    """All of them [B, n] side by side, some columns at a time: in float64, a copy of the whole would take twice their memory."""
    if not gradients:
        return
    width = max(1, BLOCK.get(gradients[0].device.type, 1 << 16) // max(1, len(gradients[0])))
    held: list[torch.Tensor] = []
    start = end = 0
    for part in (part for g in gradients for part in g.split(width, dim=1)):
        held.append(part)
        end += part.shape[1]
        if end - start >= width:
            yield slice(start, end), _beside(held)
            held, start = [], end
    if held:
        yield slice(start, end), _beside(held)


def _beside(parts: list[torch.Tensor]) -> torch.Tensor:
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).double()
