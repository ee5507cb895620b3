"""Two ways to per-example gradients, behind one interface; both hand `p.grad_sample` [B, *shape] to the optimizer.

`views`: the K views of one example are an ordinary batch, whose mean loss has the example's gradient. No hooks, any model,
the price and less than the memory of ordinary training once K is 16 or so. `batched`: many examples in one pass, weight
gradients kept apart; better for small K.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dp_finetune.objective import ViewsLike
from dp_finetune.per_example import per_example_gradients, unsupported_layers
from errors import InputError, unusable
from models.ema import trainable

KEPT_APART = 160 << 20  # bytes of examples' gradients on a processor; measured: above, an example can take twice as long


class EngineName(Enum):
    auto = "auto"
    views = "views"
    batched = "batched"


class Engine:
    """Fills `p.grad_sample` of the trainable parameters for `views.examples` examples, at most `examples_per_pass`."""

    def __init__(self, network: Any, views_per_pass: int, augmult: int, bfloat16: bool = False):
        self.network, self.views_per_pass, self.bfloat16 = network, max(1, views_per_pass), bfloat16
        self.examples_per_pass = 1
        self.parameters: list[nn.Parameter] = list(trainable(network).values())

    def __call__(self, views: ViewsLike) -> None:
        raise NotImplementedError


class ViewsEngine(Engine):
    """One example at a time; more views than fit are accumulated over several passes."""

    def __call__(self, views: ViewsLike) -> None:
        assert views.examples == 1
        for start in range(0, views.augmult, self.views_per_pass):
            part = views.part(slice(start, start + self.views_per_pass))
            (part.losses(self.network, self.bfloat16).sum() / views.augmult).backward()
        for p in self.parameters:
            p.grad_sample = torch.zeros_like(p)[None] if p.grad is None else p.grad[None]  # type: ignore[attr-defined]
            p.grad = None


class BatchedEngine(Engine):
    """Several examples at a time, as many as their views fit in one pass."""

    def __init__(self, network: Any, views_per_pass: int, augmult: int, bfloat16: bool = False):
        super().__init__(network, views_per_pass, augmult, bfloat16)
        if missing := unsupported_layers(network):
            raise unusable("method.gradient_engine", "batched", f"it has no rule for {missing[0]}; use views")
        self.examples_per_pass = examples_that_fit(
            views_per_pass, augmult, sum(p.numel() for p in self.parameters), self.parameters[0].device
        )

    def __call__(self, views: ViewsLike) -> None:
        with per_example_gradients(self.network, views.examples):
            (views.losses(self.network, self.bfloat16).sum() / views.augmult).backward()
        for p in self.parameters:
            if getattr(p, "grad_sample", None) is None:
                p.grad_sample = p.new_zeros(views.examples, *p.shape)  # type: ignore[attr-defined]
            p.grad = None


ENGINES = {EngineName.views: ViewsEngine, EngineName.batched: BatchedEngine}


def refuse_batch_norm(network: nn.Module) -> None:
    """BatchNorm mixes examples, so no per-example gradient exists: InputError with the layer's name."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            kind = type(module).__name__
            raise InputError(f"The model's layer {name} is {kind}, which mixes examples; use GroupNorm.", "model")


def choose(
    network: nn.Module, some_views: Callable[[int], ViewsLike], augmult: int, views_per_pass: int, bfloat16: bool = False
) -> EngineName:
    """The faster engine by a short timing on `some_views(B)`; `views` where the batched one has no rule for a layer."""
    if unsupported_layers(network):
        return EngineName.views
    device = next(network.parameters()).device
    seconds = {}
    examples = max(1, min(32, views_per_pass // augmult))
    views = some_views(examples)
    for name, engine_class in ENGINES.items():
        engine = engine_class(network, views_per_pass, augmult, bfloat16)
        step = engine.examples_per_pass
        times = []
        for _ in range(3):
            started = time.perf_counter()
            for i in range(0, examples, step):
                last = min(i + step, examples)
                engine(views.part(slice(i * augmult, last * augmult), last - i))
                for p in engine.parameters:
                    p.grad_sample = None  # type: ignore[attr-defined]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
        seconds[name] = min(times[1:])
    return min(seconds, key=lambda name: seconds[name])


def examples_that_fit(views: int, augmult: int, parameters: int, device: torch.device) -> int:
    """How many examples one pass of `batched` has: those of `views`; on a processor so few that their gradients stay small."""
    examples = views // augmult
    if device.type != "cuda":
        examples = min(examples, KEPT_APART // (4 * parameters))
    return max(1, examples)


def views_that_fit(bytes_per_view: int, gibibytes: float) -> int:
    """How many views one pass may hold."""
    return max(1, int(gibibytes * 2**30 / max(bytes_per_view, 1)))
