"""Opacus' DPOptimizer with the run's own noise, a fused clipping pass, and a rule for gradients that are not numbers."""

from __future__ import annotations

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from privacy.noise import NoiseStream
from tracking import ranks


class PrivateOptimizer(DPOptimizer):
    """Clips `p.grad_sample` [B, *shape] to L2 norm C, sums, adds N(0, (sigma C)²) and divides by the expected batch size.

    An example whose gradient norm is not finite contributes zero: it can neither poison the sum nor stop the run, and its
    contribution is within C like any other. `noise` is the stream of the current step; set it before the last `step()`.
    """

    noise: NoiseStream | None = None

    def clip_and_accumulate(self) -> None:
        orders, grads = zip(*(_in_memory_order(p.grad_sample.to(p.dtype)) for p in self.params), strict=True)
        norms = torch.stack([g.flatten(1).norm(2, dim=1) for g in grads], dim=1).norm(2, dim=1)  # [B]
        finite = torch.isfinite(norms)
        factor = torch.where(finite, (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0), 0.0)
        whole = bool(finite.all())
        for p, g, order in zip(self.params, grads, orders, strict=True):
            if not whole:
                g = torch.where(finite.reshape(-1, *(1 for _ in p.shape)), g, 0.0)
            total = (factor @ g.flatten(1)).reshape(g.shape[1:]).permute(np.argsort(order).tolist()).contiguous()
            p.summed_grad = total if p.summed_grad is None else p.summed_grad.add_(total)

    def add_noise(self) -> None:
        """Every process sums the clipped gradients of all and adds the same noise, so it enters once."""
        assert self.noise is not None
        ranks.sum_over_ranks([p.summed_grad for p in self.params])
        for p in self.params:
            noise = torch.from_numpy(self.noise.gaussian(self.noise_multiplier * self.max_grad_norm, p.numel()))
            p.grad = p.summed_grad + noise.to(p.device, p.dtype).reshape(p.shape)
        self.noise = None  # one stream, one step


def _in_memory_order(gradients: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """Dimensions of a parameter as its gradients [B, *shape] have them in memory, and the gradients in that order: sums over
    them then read what lies there, without a copy."""
    order = sorted(range(gradients.dim() - 1), key=lambda d: -gradients.stride(1 + d))
    return order, gradients.permute(0, *(1 + d for d in order))
