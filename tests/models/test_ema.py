"""The moving average, in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models.ema import EMA


def constant(value: float) -> nn.Module:
    module = nn.Linear(2, 2)
    for p in module.parameters():
        nn.init.constant_(p, value)
    return module


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("updates", [1, 5, 40])
def test_the_start_fades_by_the_product_of_the_warmed_up_decays(decay, updates):
    ema = EMA(constant(1.0), decay)
    for _ in range(updates):
        ema.update(constant(3.0))
    start = math.prod(min(decay, (1 + n) / (10 + n)) for n in range(1, updates + 1))
    for average in ema.average.values():
        assert torch.allclose(average, torch.full_like(average, 3 - 2 * start), atol=1e-5)


def test_a_network_that_rests_is_its_own_average():
    module = nn.Linear(3, 3)
    ema = EMA(module, 0.999)
    for _ in range(10):
        ema.update(module)
    assert all(torch.allclose(ema.average[name], p) for name, p in module.named_parameters())


def test_averaging_does_not_touch_the_network_until_it_is_copied():
    ema, module = EMA(constant(1.0), 0.9), constant(3.0)
    ema.update(module)
    assert all((p == 3).all() for p in module.parameters())
    ema.copy_to(module)
    assert all(torch.equal(p, ema.average[name]) for name, p in module.named_parameters())
    assert all(p.requires_grad for p in module.parameters())


def test_frozen_parameters_are_left_alone():
    module = constant(1.0)
    module.get_parameter("bias").requires_grad_(False)
    ema = EMA(module, 0.5)
    nn.init.constant_(module.get_parameter("bias"), 7.0)
    ema.update(module)
    ema.copy_to(module)
    assert list(ema.average) == ["weight"]
    assert (module.get_parameter("bias") == 7).all()


def test_a_resumed_average_goes_on_where_it_was():
    whole, first = EMA(constant(1.0), 0.9), EMA(constant(1.0), 0.9)
    second = EMA(constant(0.0), 0.9)
    for _ in range(4):
        whole.update(constant(3.0))
    for ema in (first, second):
        second.load_state_dict(first.state_dict())
        for _ in range(2):
            ema.update(constant(3.0))
    assert second.updates == whole.updates
    assert all(torch.equal(second.average[name], value) for name, value in whole.average.items())
