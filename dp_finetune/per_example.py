"""Per-example weight gradients from one batched backward pass (engine `batched`).

Inside `per_example_gradients`, layers with trainable parameters compute their input gradients for the whole batch at once,
and their weight gradients separately for each example: the rows of a batch are B examples of K consecutive rows, and
`p.grad_sample` is float [B, *p.shape] afterwards, or `OuterProducts` of a large linear layer that saw one row of each example.
Conv2d, Linear, GroupNorm, LayerNorm and Embedding are covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

SUPPORTED = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.Embedding)
SPARED = 8  # an outer product of at least so many times the numbers of its two factors is not written down


@dataclass(frozen=True)
class OuterProducts:
    """Gradients [B, out, in] of a linear layer's weight, one `errors` ⊗ `inputs` for each example."""

    errors: torch.Tensor  # [B, out]
    inputs: torch.Tensor  # [B, in]

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, rows: slice) -> OuterProducts:
        return OuterProducts(self.errors[rows], self.inputs[rows])

    def dense(self) -> torch.Tensor:
        return self.errors[:, :, None] * self.inputs[:, None, :]

    def norms(self) -> torch.Tensor:
        """float64 [B]: |e ⊗ x| = |e| |x|."""
        return self.errors.double().norm(dim=1) * self.inputs.double().norm(dim=1)

    def weighted_sum(self, factor: torch.Tensor) -> torch.Tensor:
        """`factor` float64 [B] of each example, and nothing of one whose factor is 0: float64 [out, in]."""
        some = factor > 0
        return (factor[some, None] * self.errors[some].double()).T @ self.inputs[some].double()


_Gradient = torch.Tensor | OuterProducts | None
_Gradients = tuple[torch.Tensor | None, _Gradient, torch.Tensor | None]  # like x, [B, *weight], [B, *bias]


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
        self.module: Any = module  # of `kind`
        self.examples = examples
        self.kind = next(cls for cls in SUPPORTED if isinstance(module, cls))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind is nn.GroupNorm:
            return self.group_norm(x)
        weight, bias = self.module.weight, getattr(self.module, "bias", None)
        return _Layer.apply(x, weight, bias, self)

    def group_norm(self, x: torch.Tensor) -> torch.Tensor:
        """All rows as one of B·K times the groups and the weights: autograd keeps the gradients of its weights apart."""
        rows, channels, module = *x.shape[:2], self.module
        weight, bias = (p.detach().repeat(rows).requires_grad_() for p in (module.weight, module.bias))
        weight.register_hook(lambda grad: self.store((grad.view(self.examples, -1, channels).sum(1), None)))
        bias.register_hook(lambda grad: self.store((None, grad.view(self.examples, -1, channels).sum(1))))
        y = F.group_norm(x.reshape(1, -1, *x.shape[2:]), rows * module.num_groups, weight, bias, module.eps)
        return y.reshape(x.shape)

    def store(self, gradients: Sequence[_Gradient]) -> None:
        """Add this use's weight and bias gradients [B, *shape] to the parameters' `grad_sample`."""
        for parameter, gradient in zip((self.module.weight, getattr(self.module, "bias", None)), gradients, strict=True):
            if parameter is not None and parameter.requires_grad and gradient is not None:
                before = getattr(parameter, "grad_sample", None)
                if isinstance(gradient, OuterProducts) and before is None:
                    parameter.grad_sample = gradient
                    continue
                gradient = dense(gradient).to(parameter.dtype)
                parameter.grad_sample = gradient if before is None else dense(before) + gradient


def dense(gradient: torch.Tensor | OuterProducts) -> torch.Tensor:
    """[B, *shape]"""
    return gradient.dense() if isinstance(gradient, OuterProducts) else gradient


class _Layer(torch.autograd.Function):
    """Forward as the layer does it; backward by its rule: the input's gradient for autograd, the weights' through `store`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: _Forward) -> torch.Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return _RULES[layer.kind].run(layer.module, x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x = x.to(grad.dtype) if x.is_floating_point() else x  # where autocast has another type for the layer
        layer, wanted = ctx.layer, ctx.needs_input_grad[0]
        x_grad, *gradients = _RULES[layer.kind].backward(layer.module, x, grad, layer.examples, wanted)
        layer.store(gradients)
        return x_grad, None, None, None


def _conv(module: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor, examples: int, wanted: bool) -> _Gradients:
    x_grad = _conv_backward(module, x, grad, (True, False, False))[0] if wanted else None
    bias = grad.reshape(examples, len(grad) // examples, grad.shape[1], -1).sum((1, 3)) if module.bias is not None else None
    if not module.weight.requires_grad:
        return x_grad, None, bias
    columns = len(x) // examples * grad[0, 0].numel() * module.weight[0].numel()  # of one example
    small = columns <= _COLUMNS or x.is_cuda  # a GPU waits for kernel calls, whatever they compute
    if module.groups == 1 and module.dilation == (1, 1) and small:
        return x_grad, _unfolded_products(module, x, grad, examples), bias
    if len(x) == examples and module.groups == 1:
        return x_grad, _grouped_products(module, x, grad), bias
    parts = [
        _conv_backward(module, x_i, grad_i, (False, True, False))[1]
        for x_i, grad_i in zip(x.chunk(examples), grad.chunk(examples), strict=True)
    ]
    return x_grad, torch.stack(parts), bias


def _conv_backward(module: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor, mask: tuple[bool, bool, bool]) -> Any:
    weight = module.weight.to(grad.dtype)
    args = (module.stride, module.padding, module.dilation, False, [0, 0], module.groups, mask)
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *args)


def _unfolded_products(module: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor, examples: int) -> torch.Tensor:
    """Where one example is too small for a kernel call of its own: one batched product of output gradients and unfolded inputs.

    Channels are innermost in the unfolded inputs, so that they are copied in long rows, and in the result, which is a view.
    """
    (k, m), (above, left) = module.kernel_size, cast(tuple[int, int], module.padding)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, above, above))  # [B·K, H, W, C]
    patches = padded.unfold(1, k, module.stride[0]).unfold(2, m, module.stride[1])  # [B·K, h, w, C, k, m]
    columns = patches.permute(0, 1, 2, 4, 5, 3).reshape(examples, -1, module.weight[0].numel())  # [B, K·h·w, k·m·C]
    errors = grad.reshape(examples, len(grad) // examples, grad.shape[1], -1).transpose(1, 2).flatten(2)  # [B, D, K·h·w]
    return torch.bmm(errors, columns).unflatten(2, (k, m, -1)).permute(0, 1, 4, 2, 3)


def _grouped_products(module: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Of examples with one view: one image of B times the channels, so that one kernel call writes all of their gradients."""
    x, grad = (rows.contiguous().view(1, -1, *rows.shape[2:]) for rows in (x, grad))
    shape = x.new_empty(len(x[0]) // module.in_channels * module.out_channels, *module.weight.shape[1:])  # never read
    args = (module.stride, module.padding, module.dilation, False, [0, 0], len(shape) // module.out_channels)
    weight = torch.ops.aten.convolution_backward(grad, x, shape, None, *args, (False, True, False))[1]
    return weight.view(-1, *module.weight.shape)  # type: ignore[no-any-return]


def _linear(module: nn.Linear, x: torch.Tensor, grad: torch.Tensor, examples: int, wanted: bool) -> _Gradients:
    inputs, errors = x.reshape(examples, -1, x.shape[-1]), grad.reshape(examples, -1, grad.shape[-1])
    bias = errors.sum(1) if module.bias is not None else None
    x_grad = grad @ module.weight.to(grad.dtype) if wanted else None
    if not module.weight.requires_grad:
        return x_grad, None, bias
    if inputs.shape[1] == 1 and module.weight.numel() >= SPARED * sum(module.weight.shape):
        return x_grad, OuterProducts(errors[:, 0], inputs[:, 0]), bias
    return x_grad, torch.bmm(errors.transpose(1, 2), inputs), bias


def _layer_norm(module: nn.LayerNorm, x: torch.Tensor, grad: torch.Tensor, examples: int, wanted: bool) -> _Gradients:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        normal = F.layer_norm(x, module.normalized_shape, eps=module.eps)
        x_grad = torch.autograd.grad(normal, x, grad * module.weight.to(grad.dtype))[0]
    shape = (examples, -1, *module.normalized_shape)
    return x_grad, (grad * normal.detach()).reshape(shape).sum(1), grad.reshape(shape).sum(1)


def _embedding(module: nn.Embedding, x: torch.Tensor, grad: torch.Tensor, examples: int, wanted: bool) -> _Gradients:
    out = grad.new_zeros(examples, *module.weight.shape)
    example = torch.arange(examples, device=x.device).repeat_interleave(x.numel() // examples)
    return None, out.index_put_((example, x.reshape(-1)), grad.reshape(-1, grad.shape[-1]), accumulate=True), None


_COLUMNS = 1 << 17  # measured: above, to unfold an example's input costs more than a kernel call of its own


class _Rule(NamedTuple):
    run: Callable  # (module, x) -> output
    backward: Callable[..., _Gradients]  # (module, x, grad, examples, whether the input's gradient is wanted)


_RULES: dict[type, _Rule] = {
    nn.Conv2d: _Rule(lambda m, x: F.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups), _conv),
    nn.Linear: _Rule(lambda m, x: F.linear(x, m.weight, m.bias), _linear),
    nn.LayerNorm: _Rule(lambda m, x: F.layer_norm(x, m.normalized_shape, m.weight, m.bias, m.eps), _layer_norm),
    nn.Embedding: _Rule(lambda m, x: F.embedding(x, m.weight), _embedding),
}
