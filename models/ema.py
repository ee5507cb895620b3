"""Exponential moving average of a network's parameters, with the usual warm-up."""

from __future__ import annotations

import torch
from torch import nn


class EMA:
    """After update n the decay is min(decay, (1 + n) / (10 + n)), so that early averages are not stuck at the start."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in module.named_parameters():
            self.average[name].lerp_(p, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            p.copy_(self.average[name])
