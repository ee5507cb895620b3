from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer

from audit.clipping import Slopes
from dp_finetune.engines import BatchedEngine, ViewsEngine
from dp_finetune.optimizer import PrivateOptimizer
from dp_finetune.per_example import OuterProducts
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
    assert moved.norm() <= CLIP * (1 + 1e-6)  # of weights in float32


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_an_example_that_is_not_finite_contributes_nothing(poison):
    others, bad = list(torch.randn(3, 8)), torch.zeros(8)
    bad[:2] = poison
    assert torch.equal(update([*others, bad]), update(others))
    assert torch.equal(update([bad]), torch.zeros(8))


def summed(grads: torch.Tensor, clip: float = CLIP) -> torch.Tensor:
    """What examples of these gradients [B, n] add to the sum: float64 [n]."""
    p = torch.nn.Parameter(torch.zeros(grads.shape[1]))
    made = PrivateOptimizer(torch.optim.SGD([p]), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=1)
    p.grad_sample = grads  # type: ignore[attr-defined]
    made.clip_and_accumulate()
    assert p.summed_grad.dtype == torch.float64  # type: ignore[attr-defined]
    return p.summed_grad  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("size", [3_000_000, 30_000_000])
@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0])
def test_equal_gradients_of_millions_of_weights_add_the_clip_norm_and_no_more(size, value):
    """Their sum of squares in float32 falls short by 1 %, and the clipped gradient would be too long by as much."""
    added = summed(torch.full((1, size), value)).norm()
    assert CLIP * (1 - 1e-6) < added <= CLIP


@pytest.mark.parametrize("kind", [ViewsEngine, BatchedEngine])
@pytest.mark.parametrize("size", [3_000_000, 30_000_000])
@pytest.mark.parametrize("k", [1, 2])
def test_engines_hand_over_what_is_clipped_to_the_clip_norm(kind, size, k):
    network = torch.nn.Linear(size // 1000, 1000, bias=False)
    engine = kind(network, k, k)
    made = PrivateOptimizer(torch.optim.SGD(engine.parameters), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=1)
    engine(Slopes(torch.ones(k, size // 1000), torch.ones(k, 1000)))
    made.clip_and_accumulate()
    assert CLIP * (1 - 1e-6) < network.weight.summed_grad.norm() <= CLIP  # type: ignore[attr-defined]


@pytest.mark.parametrize("clip", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("value", [1e-45, 1e-38, 1e-23, 1e-4, 1.0, 1e19, 3e38])
def test_sizes_of_every_magnitude_are_clipped_whose_squares_float32_cannot_hold(value, clip):
    """1e-45 is the least float32; squares vanish below 1e-23 and overflow above 1e19."""
    added = summed(torch.full((1, 1000), value), clip).norm()
    norm = 1000**0.5 * float(torch.tensor(value).double())
    assert added <= clip
    assert added == pytest.approx(min(norm, clip), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_gradients_of_other_types_are_clipped_as_they_are(dtype):
    grads = torch.randn(5, 70_000).to(dtype)
    expected = (CLIP * grads.double() / grads.double().norm(dim=1, keepdim=True)).sum(0)
    assert torch.allclose(summed(grads), expected, rtol=1e-8, atol=1e-12)


def test_one_example_beside_many_large_ones_moves_their_sum_by_the_clip_norm_and_no_more():
    """In float32 the sum would round by a share of the others' length."""
    others, one = torch.randn(300, 5000), torch.randn(1, 5000)
    moved = (summed(torch.cat([others, one])) - summed(others)).norm()
    assert CLIP * (1 - 1e-6) < moved <= CLIP * (1 + 1e-12)


def test_outer_products_are_clipped_and_summed_as_their_gradients_are():
    """One of them in the middle of other parameters, over two passes, with an example that is not finite."""
    errors, inputs, other, last = torch.randn(5, 20), torch.randn(5, 30), torch.randn(5, 7), torch.randn(5, 3)
    inputs[3] *= 1e-3  # is not clipped
    errors[1, 0] = float("inf")
    sums = []
    for products in (True, False):
        ps = [torch.nn.Parameter(torch.zeros(*shape)) for shape in ((7,), (20, 30), (3,))]
        made = PrivateOptimizer(torch.optim.SGD(ps), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=1)
        for rows in (slice(0, 2), slice(2, 5)):
            found = OuterProducts(errors[rows], inputs[rows])
            for p, gradient in zip(ps, (other[rows], found if products else found.dense(), last[rows]), strict=True):
                p.grad_sample = gradient  # type: ignore[attr-defined]
            made.clip_and_accumulate()
        for p in ps:
            p.grad_sample = p.new_zeros(0, *p.shape)  # type: ignore[attr-defined]
        made.clip_and_accumulate()
        sums.append([p.summed_grad for p in ps])  # type: ignore[attr-defined]
    for one, whole in zip(*sums, strict=True):
        assert one.dtype == torch.float64
        assert torch.allclose(one, whole, rtol=1e-6, atol=1e-7 * CLIP)  # products in float32 are rounded, by 6e-8 of each example


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e18, 1e30])
def test_an_outer_product_adds_the_clip_norm_and_no_more(scale):
    p = torch.nn.Parameter(torch.zeros(100, 200))
    made = PrivateOptimizer(torch.optim.SGD([p]), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=1)
    p.grad_sample = OuterProducts(scale * torch.randn(1, 100), torch.randn(1, 200))  # type: ignore[attr-defined]
    made.clip_and_accumulate()
    added = p.summed_grad.norm()  # type: ignore[attr-defined]
    assert added <= CLIP
    assert added == pytest.approx(min(CLIP, float(p.grad_sample.norms())), rel=1e-6)  # type: ignore[attr-defined]


def test_gradients_are_summed_over_passes_and_in_any_order_of_memory():
    rows = torch.randn(6, 4, 5, 3)
    ps = [torch.nn.Parameter(torch.zeros(4, 5, 3)), torch.nn.Parameter(torch.zeros(4, 5, 3))]
    made = PrivateOptimizer(torch.optim.SGD(ps), noise_multiplier=0.0, max_grad_norm=1e6, expected_batch_size=1)
    permuted = rows.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for first, second in ((permuted[:2], rows[:2]), (rows[2:6], permuted[2:6]), (rows[:0], rows[:0])):
        ps[0].grad_sample, ps[1].grad_sample = first, second  # type: ignore[attr-defined]
        made.clip_and_accumulate()
    for p in ps:
        assert torch.allclose(p.summed_grad, rows.double().sum(0), atol=1e-12)  # type: ignore[attr-defined]


def test_clipping_equals_opacus():
    """But for the 1e-6 that it adds to a norm of 1 or more, and for float32: 1e-6 of each clipped gradient."""
    rows = list(torch.randn(6, 8))
    ps, theirs = parameters(), parameters()
    mine, parent = optimizer(ps), optimizer(theirs, kind=DPOptimizer)
    give(ps, rows)
    give(theirs, rows)
    mine.step(), parent.step()
    assert torch.allclose(torch.cat([*ps]), torch.cat([*theirs]), atol=len(rows) * 1e-6 * CLIP / EXPECTED)


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
