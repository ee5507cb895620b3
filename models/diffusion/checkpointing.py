"""Gradient checkpointing (Chen et al. 2016): memory for a second forward pass of each block, by diffusers' own switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from models.ema import trainable
from models.flops import alive_bytes


def checkpoint_blocks(network: nn.Module) -> None:
    """In place, of a `UNet2DModel` or what holds one; the gradients stay the same."""
    for unet in _switches(network):
        unet.enable_gradient_checkpointing()


def is_checkpointed(network: nn.Module) -> bool:
    return any(unet.is_gradient_checkpointing for unet in _switches(network))


def _switches(network: nn.Module) -> list[Any]:
    from diffusers import ModelMixin

    return [module for module in network.modules() if isinstance(module, ModelMixin)]


def training_peak(network: nn.Module, loss: Callable[[], torch.Tensor]) -> int:
    """Bytes alive at one time in a forward and backward pass, beside the weights and their gradients.

    With checkpointing what a backward pass needs is not all kept at one time, so that it cannot be counted as it is saved.
    """

    def drop(p: torch.Tensor) -> None:
        p.grad = None

    hooks = [p.register_post_accumulate_grad_hook(drop) for p in trainable(network).values()]
    try:
        return alive_bytes(lambda: loss().backward())
    finally:
        for hook in hooks:
            hook.remove()
