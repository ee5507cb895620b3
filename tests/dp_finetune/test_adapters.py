"""Adapters: what is trained and what stays, where they start, their gradients, and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from dp_finetune import adapters
from dp_finetune.adapters import Adapter, AdapterName, Layers, UpKernel
from dp_finetune.engines import BatchedEngine, ViewsEngine
from models.diffusion.autoencoder import Autoencoder
from models.diffusion.model import DiffusionModel
from models.diffusion.schedules import linear_alpha_bar
from models.diffusion.stored import load_unet, on_meta, save_part
from models.ema import trainable
from models.features.extractors import weights_digest
from tests.dp_finetune.test_engines import AUGMULT, by_engine, relative, some_views
from tests.models.test_latents import tiny_vae
from tests.rejects import rejects
from tests.toy import tiny_unet

ALL = list(Layers)
ADDED = [
    Adapter(kind=AdapterName.loda),
    Adapter(kind=AdapterName.loda, rank=20, layers=ALL, up_kernel=UpKernel.same),  # more than any layer has channels
    Adapter(kind=AdapterName.lora, layers=ALL),
]
PARTS = [Adapter(kind=kind) for kind in (AdapterName.attention, AdapterName.norm_bias, AdapterName.full)]


def identity(adapter: Adapter) -> str:
    return f"{adapter.kind.value}-{adapter.rank}"


def output(unet: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    views = some_views(dtype)
    with torch.no_grad():
        return unet(views.x_t, views.t, views.labels).sample


def moved(unet: Any) -> Any:
    """Trained a little, in that B is not zero any more."""
    with torch.no_grad():
        for i, p in enumerate(trainable(unet).values()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return unet


@pytest.mark.parametrize("adapter", [*ADDED, *PARTS], ids=identity)
def test_an_adapted_network_starts_as_the_base_bitwise(adapter):
    unet = tiny_unet()
    before = output(unet)
    adapter.apply(unet)
    assert torch.equal(output(unet), before)
    assert not torch.equal(output(moved(unet)), before)


@pytest.mark.parametrize("layers", [[Layers.conv], [Layers.attention], [Layers.embedding], ALL], ids=str)
@pytest.mark.parametrize("rank", [1, 4, 30])
@pytest.mark.parametrize("up_kernel", UpKernel)
def test_the_number_of_parameters_is_that_of_the_formula(layers, rank, up_kernel):
    expected = 0
    for name, layer in tiny_unet().named_modules():
        if isinstance(layer, nn.Conv2d) and Layers.conv in layers:
            k = int(layer.kernel_size[0])
            expected += rank * (k * k * layer.in_channels + (k * k if up_kernel is UpKernel.same else 1) * layer.out_channels)
        if isinstance(layer, nn.Linear) and (Layers.attention if "attentions" in name else Layers.embedding) in layers:
            expected += rank * (layer.in_features + layer.out_features)
    unet = tiny_unet()
    Adapter(rank=rank, layers=layers, up_kernel=up_kernel).apply(unet)
    assert sum(p.numel() for p in trainable(unet).values()) == expected > 0


def test_a_plan_counts_on_the_meta_device():
    for adapter in [*ADDED, *PARTS]:
        real, shapes = tiny_unet(), on_meta({k: v for k, v in tiny_unet().config.items() if not k.startswith("_")})
        adapter.apply(real)
        adapter.apply(shapes)
        assert {name: p.shape for name, p in trainable(real).items()} == {name: p.shape for name, p in trainable(shapes).items()}


def test_a_pattern_narrows_the_layers():
    unet = tiny_unet()
    Adapter(pattern=r"conv1$").apply(unet)
    assert {name.rsplit(".", 2)[0][-5:] for name in trainable(unet)} == {"conv1"}
    with rejects("method.pattern", "no such layer"):
        Adapter(pattern="no such layer").apply(tiny_unet())


def test_loda_is_base_plus_b_of_leaky_relu_of_a():
    cases: list[tuple[Any, torch.Tensor]] = [
        (nn.Conv2d(3, 5, 3, stride=2, padding=1), torch.randn(2, 3, 8, 8)),
        (nn.Linear(3, 5), torch.randn(2, 4, 3)),
    ]
    for base, x in cases:
        layer: Any = adapters.LoDA(base, 7, UpKernel.one)
        nn.init.normal_(layer.up.weight)
        hidden = layer.down(x)
        expected = base(x) + layer.up(torch.where(hidden > 0, hidden, 0.1 * hidden))
        assert torch.allclose(layer(x), expected, atol=1e-6)
        assert layer.down.weight.shape[0] == layer.up.weight.shape[1] == 7


def test_parts_are_what_they_are_called():
    unet = tiny_unet()
    Adapter(kind=AdapterName.attention).apply(unet)
    inside = {id(p) for module in unet.modules() if isinstance(module, Attention) for p in module.parameters()}
    assert {id(p) for p in trainable(unet).values()} == inside
    Adapter(kind=AdapterName.norm_bias).apply(unet)
    assert all(name.endswith("bias") or "norm" in name for name in trainable(unet))
    assert all(p.requires_grad for name, p in unet.named_parameters() if name.endswith("bias") or "norm" in name)
    Adapter(kind=AdapterName.full).apply(unet)
    assert len(trainable(unet)) == len(list(unet.parameters()))


@pytest.mark.parametrize("adapter", [*ADDED, *PARTS], ids=identity)
@pytest.mark.parametrize("engine", [ViewsEngine, BatchedEngine])
def test_per_example_gradients_equal_a_float64_loop(adapter, engine, monkeypatch):
    unet, views = tiny_unet().double(), some_views()
    adapter.apply(unet)
    moved(unet)
    frozen = {name: p.clone() for name, p in unet.named_parameters() if not p.requires_grad}
    monkeypatch.setattr("dp_finetune.objective.view_losses", _losses)
    got = by_engine(engine(unet, 1000, AUGMULT), views)
    rows = []
    for i in range(views.examples):
        part = views.part(slice(i * AUGMULT, (i + 1) * AUGMULT))
        loss = _losses(unet, part).mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(trainable(unet).values()))]))
    assert relative(got, torch.stack(rows)) < 1e-12
    assert all(p.grad is None and torch.equal(p, frozen[name]) for name, p in unet.named_parameters() if name in frozen)


def _losses(unet: Any, views: Any, bfloat16: bool = False) -> torch.Tensor:
    return (unet(views.x_t, views.t, views.labels).sample - views.noise).square().flatten(1).mean(1)


def test_a_part_of_a_layer_costs_no_gradient_of_the_rest(monkeypatch):
    import dp_finetune.per_example as per_example

    def refuse(*_: Any) -> None:
        raise AssertionError("the gradient of a frozen weight")

    monkeypatch.setattr(per_example, "_unfolded_products", refuse)
    unet = tiny_unet()
    Adapter(kind=AdapterName.norm_bias).apply(unet)
    by_engine(BatchedEngine(unet, 1000, AUGMULT), some_views(torch.float32))


@pytest.fixture
def base(tmp_path) -> Path:
    tiny_unet(num_class_embeds=4).save_pretrained(tmp_path / "base" / "unet")
    return tmp_path / "base"


def adapted(base: Path, adapter: Adapter, **settings: Any) -> tuple[DiffusionModel, str]:
    from diffusers import UNet2DModel

    unet: Any = UNet2DModel.from_pretrained(base / "unet", low_cpu_mem_usage=False)
    mark = weights_digest(unet)
    adapter.apply(unet, seed=3)
    return DiffusionModel(moved(unet), linear_alpha_bar(100), 3, "4", guidance=0.5, **settings), mark


CPU = torch.device("cpu")


@pytest.mark.parametrize("adapter", [*ADDED, *PARTS[:2]], ids=identity)
def test_a_released_adapter_is_itself_alone_and_makes_the_same_images(adapter, base, tmp_path):
    model, mark = adapted(base, adapter)
    adapter.save(model, {"name": "base", "sha256": mark}, tmp_path / "model")
    assert not (tmp_path / "model" / "unet").exists()
    size = 4 * sum(p.numel() for p in trainable(model.network).values())
    assert size < (tmp_path / "model" / "adapter.safetensors").stat().st_size < size + 40_000
    again = adapters.load(tmp_path / "model", lambda name: tmp_path / name, 0, CPU)
    labels = np.arange(6) % 3
    assert np.array_equal(model.random(labels, stream="a"), again.random(labels, stream="a"))


@pytest.mark.parametrize("adapter", [*ADDED, *PARTS[:2]], ids=identity)
def test_an_adapter_of_a_network_of_patches_is_loaded_with_them(adapter, tmp_path):
    tiny_unet(num_class_embeds=4, in_channels=4, out_channels=4).save_pretrained(tmp_path / "base" / "unet")
    model, mark = adapted(tmp_path / "base", adapter, patch=2, image_size=15)
    adapter.save(model, {"name": "base", "sha256": mark}, tmp_path / "model")
    again = adapters.load(tmp_path / "model", lambda name: tmp_path / name, 0, CPU)
    labels = np.arange(6) % 3
    images = model.random(labels, stream="a")
    assert images.shape == (6, 15, 15, 1)
    assert np.array_equal(images, again.random(labels, stream="a"))


def test_an_adapter_on_another_base_is_refused(base, tmp_path):
    model, mark = adapted(base, Adapter())
    Adapter().save(model, {"name": "base", "sha256": mark}, tmp_path / "model")
    other = tiny_unet(num_class_embeds=4)
    other.conv_in.bias.data[0] += 1e-3
    other.save_pretrained(tmp_path / "other" / "unet")
    with rejects("base", tmp_path / "other"):
        adapters.load(tmp_path / "model", lambda name: tmp_path / "other", 0, CPU)
    with rejects("base", tmp_path / "nowhere", "public model base"):
        adapters.load(tmp_path / "model", lambda name: tmp_path / "nowhere", 0, CPU)


def test_an_adapter_on_the_latents_of_another_autoencoder_is_refused(tmp_path):
    for seed in (1, 2):
        torch.manual_seed(seed)
        vae = Autoencoder(tiny_vae(), 8, 4)
        vae.network.decoder.conv_in.bias.data.add_(seed)
        unet = tiny_unet(in_channels=2, out_channels=2, sample_size=4)
        DiffusionModel(unet, linear_alpha_bar(100), 3, "4", autoencoder=vae).save(tmp_path / str(seed))
    unet.load_state_dict(load_unet(tmp_path / "1").state_dict())
    save_part(unet, tmp_path / "2" / "unet")
    model = DiffusionModel.load(tmp_path / "1", 0, CPU)
    base = {"name": "1", **adapters.digests(model)}
    Adapter().apply(model.network)
    Adapter().save(model, base, tmp_path / "model")
    adapters.load(tmp_path / "model", lambda name: tmp_path / "1", 0, CPU)
    with rejects("base", tmp_path / "2", "other weights"):
        adapters.load(tmp_path / "model", lambda name: tmp_path / "2", 0, CPU)


@pytest.mark.parametrize("harm", ["settings", "weights", "torn"])
def test_a_damaged_adapter_is_refused(harm, base, tmp_path):
    model, mark = adapted(base, Adapter())
    folder = tmp_path / "model"
    Adapter().save(model, {"name": "base", "sha256": mark}, folder)
    if harm == "settings":
        (folder / "adapter.json").write_text("{}")
    elif harm == "weights":
        stored = json.loads((folder / "adapter.json").read_text())
        stored["adapter"]["layers"] = ["conv"]
        (folder / "adapter.json").write_text(json.dumps(stored))
    else:
        (folder / "adapter.safetensors").write_bytes(b"torn")
    with rejects("model", folder):
        adapters.load(folder, lambda name: tmp_path / name, 0, CPU)


def test_the_initial_adapter_is_of_the_seed():
    first, same, other = tiny_unet(), tiny_unet(), tiny_unet()
    for unet, seed in ((first, 1), (same, 1), (other, 2)):
        Adapter().apply(unet, seed)
    assert weights_digest(first) == weights_digest(same) != weights_digest(other)


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"rank": 0}, "rank"), ({"layers": []}, "layers"), ({"pattern": "("}, "pattern")],
)
def test_bad_settings_are_refused(settings, key):
    with rejects(f"method.{key}", settings[key]):
        Adapter(**settings).check("method")
