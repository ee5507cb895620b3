from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer

from dp_finetune.optimizer import PrivateOptimizer
from privacy.noise import NoiseSource

CLIP, EXPECTED = 0.5, 4


def parameters(sizes: tuple[int, ...] = (3, 5)) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(size)) for size in sizes]


def optimizer(ps: list[torch.nn.Parameter], sigma: float = 0.0, kind: type[DPOptimizer] = PrivateOptimizer) -> DPOptimizer:
    plain = torch.optim.SGD(ps, lr=1.0)
    made = kind(plain, noise_multiplier=sigma, max_grad_norm=CLIP, expected_batch_size=EXPECTED)
    if isinstance(made, PrivateOptimizer):
        made.noise = NoiseSource(b"k" * 32).stream("step")
    return made


def give(ps: list[torch.nn.Parameter], rows: list[torch.Tensor]) -> None:
    """Per-example gradients [B, 8], split over the parameters."""
    for p, part in zip(ps, torch.stack(rows).split([len(p) for p in ps], dim=1), strict=True):
        p.grad_sample = part.clone()  # type: ignore[attr-defined]


def update(rows: list[torch.Tensor]) -> torch.Tensor:
    ps = parameters()
    made = optimizer(ps)
    give(ps, rows)
    made.step()
    return -torch.cat([p.detach() for p in ps]) * EXPECTED


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.3, 1.0, 1e3, 1e18])
def test_no_example_moves_the_sum_by_more_than_the_clip_norm(scale):
    others = list(torch.randn(3, 8))
    moved = update([*others, scale * torch.randn(8)]) - update(others)
    assert moved.norm() <= CLIP * (1 + 1e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_an_example_that_is_not_finite_contributes_nothing(poison):
    others, bad = list(torch.randn(3, 8)), torch.zeros(8)
    bad[:2] = poison
    assert torch.equal(update([*others, bad]), update(others))
    assert torch.equal(update([bad]), torch.zeros(8))


def test_clipping_equals_opacus():
    rows = list(torch.randn(6, 8))
    ps, theirs = parameters(), parameters()
    mine, parent = optimizer(ps), optimizer(theirs, kind=DPOptimizer)
    give(ps, rows)
    give(theirs, rows)
    mine.step(), parent.step()
    assert torch.allclose(torch.cat([*ps]), torch.cat([*theirs]), atol=1e-7)


def test_noise_has_standard_deviation_sigma_c_over_expected_batch():
    ps = parameters((40_000, 20_000))
    made = optimizer(ps, sigma=3.0)
    for p in ps:
        p.grad_sample = p.new_zeros(0, len(p))  # type: ignore[attr-defined]  # an empty batch is a step
    made.step()
    noise = torch.cat([p.detach() for p in ps]).numpy()
    expected = 3.0 * CLIP / EXPECTED
    assert abs(noise.std() / expected - 1) < 0.02
    assert abs(noise.mean()) < 4 * expected / np.sqrt(len(noise))


def test_a_stream_serves_one_step():
    ps = parameters()
    made = optimizer(ps, sigma=1.0)
    give(ps, [torch.zeros(8)])
    made.step()
    give(ps, [torch.zeros(8)])
    with pytest.raises(AssertionError):
        made.step()
