from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dp_finetune.per_example as per_example
from dp_finetune.engines import BatchedEngine, Engine, EngineName, ViewsEngine, choose, refuse_batch_norm, views_that_fit
from dp_finetune.objective import Views, dummy_views
from dp_finetune.per_example import dense
from models.diffusion.checkpointing import checkpoint_blocks, training_peak
from tests.command import call
from tests.rejects import ANY, assert_refused, rejects
from tests.toy import denoiser, tiny_unet

EXAMPLES, AUGMULT = 4, 3


def some_views(dtype: torch.dtype = torch.float64) -> Views:
    rng, rows = torch.Generator().manual_seed(1), EXAMPLES * AUGMULT
    x, noise = (torch.randn(rows, 1, 8, 8, generator=rng, dtype=torch.float64).to(dtype) for _ in range(2))
    labels = torch.randint(0, 10, (EXAMPLES,), generator=rng).repeat_interleave(AUGMULT)
    return Views(x, torch.randint(0, 1000, (rows,), generator=rng), labels, noise, EXAMPLES, denoiser())


def one(views: Views, i: int) -> Views:
    return views.part(slice(i * AUGMULT, (i + 1) * AUGMULT))


def by_loop(unet: Any, views: Views) -> torch.Tensor:
    """Plain autograd, one example at a time: float64 [B, parameters]."""
    rows = []
    for i in range(views.examples):
        part = one(views, i)
        loss = (unet(part.x_t, part.t, part.labels).sample - part.noise).square().mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(unet.parameters()))]))
    return torch.stack(rows)


def by_engine(engine: Engine, views: Views) -> torch.Tensor:
    rows = []
    for start in range(0, views.examples, engine.examples_per_pass):
        stop = min(start + engine.examples_per_pass, views.examples)
        part = views.part(slice(start * AUGMULT, stop * AUGMULT))
        part.examples = stop - start
        engine(part)
        rows.append(torch.cat([dense(p.grad_sample).flatten(1) for p in engine.parameters], dim=1))  # type: ignore[attr-defined]
        for p in engine.parameters:
            p.grad_sample = None  # type: ignore[attr-defined]
    return torch.cat(rows)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


ENGINES = [
    (ViewsEngine, 1000),
    (ViewsEngine, 2),
    (BatchedEngine, 1000),
    (BatchedEngine, 2 * AUGMULT),
    (BatchedEngine, 3 * AUGMULT),
]


@pytest.mark.parametrize(("engine", "views_per_pass"), ENGINES)
@pytest.mark.parametrize("unfold", [True, False])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("augmult", [1, AUGMULT])
def test_engines_equal_a_float64_loop(engine, views_per_pass, unfold, channels_last, augmult, monkeypatch):
    monkeypatch.setattr(f"{__name__}.AUGMULT", augmult)
    monkeypatch.setattr(per_example, "_COLUMNS", 1 << 30 if unfold else 0)
    unet, views = tiny_unet().double(), some_views()
    expected = by_loop(unet, views)
    if channels_last:
        unet = unet.to(memory_format=torch.channels_last)
        views.x_t = views.x_t.contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr("dp_finetune.objective.view_losses", _losses)
    assert relative(by_engine(engine(unet, views_per_pass, AUGMULT), views), expected) < 1e-12


@pytest.mark.parametrize("unfold", [True, False])
@pytest.mark.parametrize("augmult", [1, AUGMULT])
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": (3, 5), "padding": (1, 2)},
        {"kernel_size": (5, 2), "padding": (0, 1), "stride": (2, 3)},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "groups": 2},
    ],
    ids=str,
)
def test_convolutions_of_every_geometry_equal_a_loop(geometry, augmult, unfold, monkeypatch):
    monkeypatch.setattr(per_example, "_COLUMNS", 1 << 30 if unfold else 0)
    layer, x = nn.Conv2d(4, 6, **geometry).double(), torch.randn(EXAMPLES * augmult, 4, 9, 7, dtype=torch.float64)
    with per_example.per_example_gradients(layer, EXAMPLES):
        layer(x).square().sum().backward()
    got = layer.weight.grad_sample, layer.bias.grad_sample  # type: ignore[attr-defined, union-attr]
    weights = list(layer.parameters())
    for i, rows in enumerate(x.chunk(EXAMPLES)):
        for mine, expected in zip(got, torch.autograd.grad(layer(rows).square().sum(), weights), strict=True):
            assert torch.allclose(mine[i], expected, rtol=1e-12)


@pytest.mark.parametrize("examples", [3, 4, 7])
@pytest.mark.parametrize("unfold", [True, False])
@pytest.mark.parametrize("augmult", [1, AUGMULT])
def test_in_passes_of_one_size_no_bit_of_a_gradient_depends_on_the_other_examples_or_on_its_place(
    examples, unfold, augmult, monkeypatch
):
    """On a processor; whatever stands beside it."""
    monkeypatch.setattr(f"{__name__}.AUGMULT", augmult)
    monkeypatch.setattr(per_example, "_COLUMNS", 1 << 30 if unfold else 0)
    unet, rng = tiny_unet(), torch.Generator().manual_seed(2)
    rows = (examples + 1) * AUGMULT
    x, noise = (torch.randn(rows, 1, 8, 8, generator=rng) for _ in range(2))
    t, labels = torch.randint(0, 1000, (rows,), generator=rng), torch.zeros(rows, dtype=torch.int64)

    def gradients(order: list[int]) -> torch.Tensor:
        chosen = torch.cat([torch.arange(i * AUGMULT, (i + 1) * AUGMULT) for i in order])
        views = Views(x[chosen], t[chosen], labels[chosen], noise[chosen], len(order), denoiser())
        return by_engine(BatchedEngine(unet, len(order) * AUGMULT, AUGMULT), views)

    first, last = list(range(examples)), examples
    expected = gradients(first)
    beside = gradients([*first[:-1], last])
    assert torch.equal(beside[:-1], expected[:-1])
    assert torch.equal(gradients(first[::-1]), expected.flip(0))


@pytest.mark.parametrize("engine", [ViewsEngine, BatchedEngine])
@pytest.mark.parametrize("unfold", [True, False])
@pytest.mark.parametrize("augmult", [1, AUGMULT])
def test_engines_are_close_in_float32(engine, unfold, augmult, monkeypatch):
    monkeypatch.setattr(f"{__name__}.AUGMULT", augmult)
    monkeypatch.setattr(per_example, "_COLUMNS", 1 << 30 if unfold else 0)
    expected = by_loop(tiny_unet().double(), some_views())
    assert relative(by_engine(engine(tiny_unet(), 1000, AUGMULT), some_views(torch.float32)).double(), expected) < 1e-5


@pytest.mark.parametrize("engine", [ViewsEngine, BatchedEngine])
@pytest.mark.parametrize("views_per_pass", [1000, 2 * AUGMULT])
def test_engines_of_a_network_of_patches_equal_a_loop_that_makes_the_patches(engine, views_per_pass):
    """2×2 pixels each, and a row and a column of zeros; in float64, but for the cast of eps to float32."""
    unet, rng = tiny_unet(in_channels=4, out_channels=4), torch.Generator().manual_seed(3)
    views = some_views(torch.float32)
    views.x_t, views.noise = (torch.randn(EXAMPLES * AUGMULT, 1, 15, 15, generator=rng) for _ in range(2))
    views.denoiser = denoiser(unet, patch=2, image_size=15)
    got = by_engine(engine(unet, views_per_pass, AUGMULT), views)
    exact, rows = tiny_unet(in_channels=4, out_channels=4).double(), []
    for i in range(EXAMPLES):
        part = one(views, i)
        patches = F.pixel_unshuffle(F.pad(part.x_t, (0, 1, 0, 1)), 2).double()
        eps = F.pixel_shuffle(exact(patches, part.t, part.labels).sample, 2)[:, :, :15, :15]
        loss = (eps - part.noise).square().mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(exact.parameters()))]))
    assert relative(got.double(), torch.stack(rows)) < 1e-5


@pytest.mark.parametrize("engine", [ViewsEngine, BatchedEngine])
@pytest.mark.parametrize("unfold", [True, False])
@pytest.mark.parametrize("augmult", [1, AUGMULT])
def test_engines_in_bfloat16_give_float32_gradients_near_the_float64_ones(engine, unfold, augmult, monkeypatch):
    monkeypatch.setattr(f"{__name__}.AUGMULT", augmult)
    monkeypatch.setattr(per_example, "_COLUMNS", 1 << 30 if unfold else 0)
    made = engine(tiny_unet(), 1000, AUGMULT, bfloat16=True)
    gradients = by_engine(made, some_views(torch.float32))
    assert gradients.dtype == torch.float32
    assert 1e-5 < relative(gradients.double(), by_loop(tiny_unet().double(), some_views())) < 5e-2


@pytest.mark.parametrize("engine", [ViewsEngine, BatchedEngine])
def test_engines_in_bfloat16_with_norms_as_a_gpu_has_them(engine, monkeypatch):
    """CUDA's autocast norms in float32; outside of it, its kernels refuse an input of another type than the weights."""
    plain = torch.nn.functional.group_norm

    def group_norm(x: torch.Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> torch.Tensor:
        x = x.float() if torch.is_autocast_enabled("cpu") else x
        assert weight is None or weight.dtype == x.dtype
        return plain(x, groups, weight, bias, eps)

    monkeypatch.setattr(torch.nn.functional, "group_norm", group_norm)
    gradients = by_engine(engine(tiny_unet(), 1000, AUGMULT, bfloat16=True), some_views(torch.float32))
    assert relative(gradients.double(), by_loop(tiny_unet().double(), some_views())) < 5e-2


def _losses(unet: Any, views: Views, bfloat16: bool = False) -> torch.Tensor:
    """As `view_losses`, without its cast to float32."""
    return (unet(views.x_t, views.t, views.labels).sample - views.noise).square().flatten(1).mean(1)


def test_frozen_parameters_get_no_gradient():
    unet = tiny_unet()
    unet.requires_grad_(False)
    unet.mid_block.requires_grad_(True)
    for engine in (ViewsEngine(unet, 1000, AUGMULT), BatchedEngine(unet, 1000, AUGMULT)):
        by_engine(engine, some_views(torch.float32))
        assert all(p.grad is None for p in unet.parameters())
        assert len(engine.parameters) == len(list(unet.mid_block.parameters()))


def test_layers_are_their_own_again_after_a_pass():
    unet = tiny_unet()
    by_engine(BatchedEngine(unet, 1000, AUGMULT), some_views(torch.float32))
    assert not any("forward" in vars(module) for module in unet.modules())


def test_an_unused_parameter_gets_zeros():
    unet, views = tiny_unet(), some_views(torch.float32)
    unet.unused = nn.Linear(2, 2)
    for engine in (ViewsEngine(unet, 1000, AUGMULT), BatchedEngine(unet, 1000, AUGMULT)):
        gradients = by_engine(engine, views)
        assert not gradients[:, -sum(p.numel() for p in unet.unused.parameters()) :].any()
        assert gradients.any()


def test_batch_norm_is_refused_by_name():
    unet = tiny_unet()
    unet.mid_block.extra = nn.BatchNorm2d(4)
    with rejects("model", ANY, "mid_block.extra", "BatchNorm2d"):
        refuse_batch_norm(unet)


def test_a_layer_without_a_rule_is_refused_by_the_batched_engine_and_left_to_views_by_auto():
    unet = tiny_unet()
    unet.extra = nn.ConvTranspose2d(1, 1, 3)
    with rejects("method.gradient_engine", "batched", "extra"):
        BatchedEngine(unet, 1000, AUGMULT)
    assert choose(unet, lambda examples: dummy_views(denoiser(unet), examples, AUGMULT), AUGMULT, 1000) is EngineName.views


def test_auto_chooses_and_leaves_no_gradient_behind():
    unet = tiny_unet()
    assert choose(unet, lambda examples: dummy_views(denoiser(unet), examples, 2), 2, 8) in (EngineName.views, EngineName.batched)
    assert all(p.grad is None and getattr(p, "grad_sample", None) is None for p in unet.parameters())


def test_a_pass_keeps_few_gradients_apart_on_a_processor(monkeypatch: pytest.MonkeyPatch):
    unet = tiny_unet()
    assert BatchedEngine(unet, 20 * AUGMULT, AUGMULT).examples_per_pass == 20
    monkeypatch.setattr("dp_finetune.engines.KEPT_APART", 4 * 5 * sum(p.numel() for p in unet.parameters()))
    assert BatchedEngine(unet, 20 * AUGMULT, AUGMULT).examples_per_pass == 5
    monkeypatch.setattr("dp_finetune.engines.KEPT_APART", 1)
    assert BatchedEngine(unet, 1000 * AUGMULT, AUGMULT).examples_per_pass == 1


def test_more_memory_holds_more_views():
    needed = denoiser().activation_bytes()
    assert 1 <= views_that_fit(needed, 0.01) < views_that_fit(needed, 0.1)


def test_checkpointing_changes_no_gradient():
    unet, views = tiny_unet(), some_views(torch.float32)
    expected = by_engine(ViewsEngine(unet, 2, AUGMULT), views)
    checkpoint_blocks(unet)
    assert torch.equal(by_engine(ViewsEngine(unet, 2, AUGMULT), views), expected)


def test_checkpointing_needs_less_memory_and_a_plan_says_so():
    with torch.device("meta"):
        model = denoiser(tiny_unet(sample_size=32, layers_per_block=3))
        plain = model.activation_bytes(), training_peak(model.network, lambda: model.predict_noise(*model.dummy_inputs(1)).sum())
        checkpoint_blocks(model.network)
        assert model.activation_bytes() < min(plain)
    assert all(p.grad is None for p in model.network.parameters())


def test_checkpointing_is_for_views_alone(here):
    asked = ["method=dp_diffusion", "method.gradient_checkpointing=true", "method.steps=2", "plan_only=true"]
    assert_refused(call(*asked), "method.gradient_checkpointing")
    assert call(*asked, "method.gradient_engine=views").code == 0
