"""Per-example weight gradients from one batched backward pass (engine `batched`).

Inside `per_example_gradients`, layers with trainable parameters compute their input gradients for the whole batch at once,
and their weight gradients separately for each example: the rows of a batch are B examples of K consecutive rows, and
`p.grad_sample` is float [B, *p.shape] afterwards. Conv2d, Linear, GroupNorm, LayerNorm and Embedding are covered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

SUPPORTED = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.Embedding)


def unsupported_layers(network: nn.Module) -> list[str]:
    """Names of layers that own trainable parameters and are not covered."""
    return [
        f"{name or 'the network'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if not _supported(module) and any(p.requires_grad for p in module.parameters(recurse=False))
    ]


def _supported(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, SUPPORTED)


@contextmanager
def per_example_gradients(network: nn.Module, examples: int) -> Iterator[None]:
    """While inside, a backward pass through `network` fills `p.grad_sample` instead of `p.grad`."""
    patched = [m for m in network.modules() if _supported(m) and any(p.requires_grad for p in m.parameters(recurse=False))]
    for module in patched:
        module.forward = _Forward(module, examples)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for module in patched:
            del module.forward  # the class's own again


class _Forward:
    """A layer's forward pass whose backward pass keeps examples apart."""

    def __init__(self, module: nn.Module, examples: int):
        self.module, self.examples = module, examples
        self.rule = _RULES[next(cls for cls in SUPPORTED if isinstance(module, cls))]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.module.weight, getattr(self.module, "bias", None)
        return _Layer.apply(x, weight, bias, self)

    def store(self, x: torch.Tensor, grad: torch.Tensor) -> None:
        """Add this use's weight gradients [B, *shape] to the parameters' `grad_sample`."""
        gradients = self.rule.weight_gradients(self.module, x, grad, self.examples)
        for parameter, gradient in zip((self.module.weight, getattr(self.module, "bias", None)), gradients, strict=True):
            if parameter is not None and parameter.requires_grad and gradient is not None:
                gradient = gradient.to(parameter.dtype)
                before = getattr(parameter, "grad_sample", None)
                parameter.grad_sample = gradient if before is None else before + gradient  # type: ignore[union-attr]


class _Layer(torch.autograd.Function):
    """Forward as the layer does it; backward: the input's gradient from autograd, the weights' through `store`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: _Forward) -> torch.Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer.rule.run(layer.module, x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        ctx.layer.store(x, grad)
        layer = ctx.layer
        return layer.rule.input_gradient(layer.module, x, grad) if ctx.needs_input_grad[0] else None, None, None, None


def _conv_backward(module: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor, mask: tuple[bool, bool, bool]) -> Any:
    weight = module.weight.to(grad.dtype)
    args = (module.stride, module.padding, module.dilation, False, [0, 0], module.groups, mask)
    return torch.ops.aten.convolution_backward(grad, x.to(grad.dtype), weight, None, *args)


def _conv_weights(
    module: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor, examples: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    bias = grad.reshape(examples, len(grad) // examples, grad.shape[1], -1).sum((1, 3)) if module.bias is not None else None
    if not module.weight.requires_grad:
        return None, bias
    work = module.weight.numel() * grad.numel() // (examples * grad.shape[1])  # products of one example
    same_size = module.stride == (1, 1) and module.dilation == (1, 1) and x.shape[2:] == grad.shape[2:]
    small = work <= _SHIFT_BELOW or x.is_cuda  # a GPU waits for kernel calls, whatever they compute
    if same_size and module.groups == 1 and small:
        return _shifted_products(x.to(grad.dtype), grad, examples, module.kernel_size), bias
    parts = [
        _conv_backward(module, x_i, grad_i, (False, True, False))[1]
        for x_i, grad_i in zip(x.chunk(examples), grad.chunk(examples), strict=True)
    ]
    return torch.stack(parts), bias


def _shifted_products(x: torch.Tensor, grad: torch.Tensor, examples: int, kernel: tuple[int, ...]) -> torch.Tensor:
    """Where one example is too small for a kernel call of its own: one batched product for each tap of the kernel.

    All images of an example lie padded in one row. A tap is then a shift of that row, and shifted rows are views. The result is
    a view too, of an example's taps one after the other: to interleave them costs as much as the products.
    """
    rows, height, width, (k, m) = len(x) // examples, *x.shape[2:], kernel
    padded = (rows, height + k - 1, width + m - 1)
    length, slack = math.prod(padded), (k - 1) * padded[2] + m - 1
    inputs = x.new_zeros(examples, x.shape[1], length + slack)
    top, left = (k - 1) // 2, (m - 1) // 2
    inside = inputs[:, :, :length].view(examples, -1, *padded)[..., top : top + height, left : left + width]
    inside.copy_(x.reshape(examples, rows, -1, height, width).transpose(1, 2))
    errors = grad.new_zeros(examples, grad.shape[1], *padded)
    errors[..., :height, :width] = grad.reshape(examples, rows, -1, height, width).transpose(1, 2)
    errors = errors.flatten(2)
    taps = x.new_empty(examples, k * m, grad.shape[1], x.shape[1])
    for i in range(k):
        for j in range(m):
            shifted = inputs[:, :, i * padded[2] + j :][:, :, :length]
            torch.bmm(errors, shifted.transpose(1, 2), out=taps[:, i * m + j])
    return taps.permute(0, 2, 3, 1).unflatten(-1, (k, m))


def _linear_weights(
    module: nn.Linear, x: torch.Tensor, grad: torch.Tensor, examples: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    inputs, errors = x.to(grad.dtype).reshape(examples, -1, x.shape[-1]), grad.reshape(examples, -1, grad.shape[-1])
    weight = torch.bmm(errors.transpose(1, 2), inputs) if module.weight.requires_grad else None
    return weight, errors.sum(1) if module.bias is not None else None


def _group_norm_weights(
    module: nn.GroupNorm, x: torch.Tensor, grad: torch.Tensor, examples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    normal = F.group_norm(x.to(grad.dtype), module.num_groups, eps=module.eps)
    shape = (examples, len(x) // examples, x.shape[1], -1)
    return (grad * normal).reshape(shape).sum((1, 3)), grad.reshape(shape).sum((1, 3))


def _layer_norm_weights(
    module: nn.LayerNorm, x: torch.Tensor, grad: torch.Tensor, examples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    normal = F.layer_norm(x.to(grad.dtype), module.normalized_shape, eps=module.eps)
    shape = (examples, -1, *module.normalized_shape)
    return (grad * normal).reshape(shape).sum(1), grad.reshape(shape).sum(1)


def _embedding_weights(module: nn.Embedding, x: torch.Tensor, grad: torch.Tensor, examples: int) -> tuple[torch.Tensor, None]:
    out = grad.new_zeros(examples, *module.weight.shape)
    example = torch.arange(examples, device=x.device).repeat_interleave(x.numel() // examples)
    return out.index_put_((example, x.reshape(-1)), grad.reshape(-1, grad.shape[-1]), accumulate=True), None


def _norm_input(run: Callable[[Any, torch.Tensor], torch.Tensor]) -> Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]:
    def gradient(module: Any, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().to(grad.dtype).requires_grad_()  # autocast on CUDA norms in float32 what it gets in bfloat16
            return torch.autograd.grad(run(module, x), x, grad)[0]

    return gradient


def _run_group_norm(module: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, module.num_groups, module.weight, module.bias, module.eps)


def _run_layer_norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


_SHIFT_BELOW = 1 << 23  # measured: below, a kernel call for each example costs more than it computes


class _Rule(NamedTuple):
    run: Callable  # (module, x) -> output
    weight_gradients: Callable  # (module, x, grad, examples) -> ([B, *weight], [B, *bias] or None)
    input_gradient: Callable  # (module, x, grad) -> like x


_RULES: dict[type, _Rule] = {
    nn.Conv2d: _Rule(
        lambda m, x: F.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups),
        _conv_weights,
        lambda m, x, grad: _conv_backward(m, x, grad, (True, False, False))[0],
    ),
    nn.Linear: _Rule(
        lambda m, x: F.linear(x, m.weight, m.bias), _linear_weights, lambda m, x, grad: grad @ m.weight.to(grad.dtype)
    ),
    nn.GroupNorm: _Rule(_run_group_norm, _group_norm_weights, _norm_input(_run_group_norm)),
    nn.LayerNorm: _Rule(_run_layer_norm, _layer_norm_weights, _norm_input(_run_layer_norm)),
    nn.Embedding: _Rule(lambda m, x: F.embedding(x, m.weight), _embedding_weights, lambda m, x, grad: None),
}
