"""What of a public U-Net is trained: small adapters beside its layers, a part of its own weights, or all of it.

LoDA (Liu et al. 2024, §II) puts a small non-linear network in parallel with each convolution; everything else is frozen.
A network that is adapted starts as the network that it was: B is zero.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from disk import write_json
from errors import require, unusable
from models.api import Denoiser
from models.diffusion.model import DiffusionModel
from models.diffusion.prompted import PromptedUNet
from models.diffusion.stored import has_unet
from models.ema import trainable
from models.features.extractors import weights_digest
from models.seeds import derive

LORA = "pytorch_lora_weights.safetensors"  # as diffusers calls it


class AdapterName(Enum):
    loda = "loda"  # non-linear low-dimensional networks beside layers
    lora = "lora"  # linear ones (Hu et al. 2022), from PEFT
    attention = "attention"  # the attention modules' own weights: what DP-LDM (Liu et al. 2023) trains
    norm_bias = "norm_bias"  # the own weights of normalisations, and every bias
    full = "full"  # everything


class Layers(Enum):
    """Kinds of layers that adapters are put beside."""

    conv = "conv"  # convolutions, of any kernel
    attention = "attention"  # projections of attention, which are 1×1 convolutions in the paper's U-Net
    embedding = "embedding"  # linear maps of the time embedding


class UpKernel(Enum):
    """The kernel of B, which the paper leaves open."""

    one = "one"  # 1×1
    same = "same"  # as A's


@dataclass(kw_only=True)
class Adapter:
    """Which weights are trained. `rank`, `layers`, `pattern` and `up_kernel` shape loda and lora, and nothing else."""

    kind: AdapterName = AdapterName.loda
    rank: int = 4  # r: channels between A and B; may exceed those of a layer
    layers: list[Layers] = field(default_factory=lambda: [Layers.conv, Layers.attention])
    pattern: str | None = None  # a regular expression: of those layers, the ones whose name it matches somewhere
    up_kernel: UpKernel = UpKernel.one  # loda only

    def check(self, prefix: str) -> None:
        require(self.rank >= 1, f"{prefix}.rank", self.rank, "1 or more")
        require(len(self.layers) > 0, f"{prefix}.layers", self.layers, f"at least one of {', '.join(k.value for k in Layers)}")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            require(False, f"{prefix}.pattern", self.pattern, f"a regular expression ({error})")

    def apply(self, unet: Any, seed: int = 0) -> None:
        """Freeze `unet`, but for what is trained; add layers where that takes them, random ones from the public `seed`.

        InputError where there is no layer to adapt. Works on the meta device, where it tells the number of parameters.
        """
        unet.requires_grad_(self.kind is AdapterName.full)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "adapter/initial weights"))
            _APPLY[self.kind](unet, self)
        if not trainable(unet):
            if self.kind in (AdapterName.loda, AdapterName.lora):
                raise unusable("method.pattern", self.pattern, "it matches no layer of this U-Net")
            raise unusable("method.adapter", self.kind, "this U-Net has no such layer")

    def layer_names(self, unet: nn.Module) -> list[str]:
        """The convolutions and linear layers that loda and lora are put beside."""
        projections = {id(m) for attention in _attentions(unet) for m in attention.modules()}

        def kind(layer: nn.Module) -> Layers | None:
            if isinstance(layer, nn.Conv2d):
                return Layers.conv
            if isinstance(layer, nn.Linear):
                return Layers.attention if id(layer) in projections else Layers.embedding
            return None

        wanted = [name for name, layer in unet.named_modules() if kind(layer) in self.layers]
        return [name for name in wanted if re.search(self.pattern or "", name)]

    def save(self, model: Denoiser, base: dict[str, str], folder: Path) -> None:
        """What is trained alone: `adapter.safetensors`, and `adapter.json` with the settings and the base that they fit."""
        model.save_sampling(folder)
        save_file(
            {name: p.detach().cpu().contiguous() for name, p in trainable(model.network).items()}, folder / "adapter.safetensors"
        )
        write_json(folder / "adapter.json", {"base": base, "adapter": plain(self)})
        if self.kind is AdapterName.lora and isinstance(model.network, PromptedUNet):
            save_file(_as_diffusers(trainable(model.network)), folder / LORA)


def digests(model: Denoiser) -> dict[str, str]:
    """Of the public networks that adapters are trained on: `sha256` of the U-Net, and of the autoencoder if there is one."""
    autoencoder = getattr(model, "autoencoder", None)
    of_latents = {} if autoencoder is None else {"autoencoder_sha256": weights_digest(autoencoder.network)}
    return {"sha256": weights_digest(model.network), **of_latents}


def load(folder: Path, base: Callable[[str], Path], seed: int, device: torch.device) -> DiffusionModel:
    """What `save` wrote, on the U-Net in the folder `base(name)`; InputError where that is another one than it was trained on."""
    try:
        stored = json.loads((folder / "adapter.json").read_text())
        adapter, base_name = _typed(stored["adapter"]), stored["base"]["name"]
        expected = {"sha256": stored["base"]["sha256"], **stored["base"]}
        weights = load_file(folder / "adapter.safetensors", device=str(device))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise unusable("model", folder, f"it is no released adapter ({error})") from error
    where = base(base_name)
    if not has_unet(where):
        raise unusable("base", where, f"it has no unet/ of diffusers; give the folder of the public model {base_name}")
    model = DiffusionModel.load(folder, seed, device, unet_folder=where)
    found = digests(model)
    if any(expected.get(part, digest) != digest for part, digest in found.items()):
        raise unusable("base", where, f"it has other weights than {base_name}, which this adapter was trained on")
    adapter.apply(model.network)
    missing = weights.keys() ^ trainable(model.network).keys()
    if missing:
        raise unusable("model", folder, f"it does not fit its own settings at {min(missing)}")
    model.network.load_state_dict(weights, strict=False)
    return model


class LoDA(nn.Module):
    """base(x) + B(LeakyReLU(A(x))) beside a Conv2d or a Linear: A: C_in → r as the layer itself, B: r → C_out, zero at start."""

    def __init__(self, base: nn.Conv2d | nn.Linear, rank: int, up_kernel: UpKernel):
        super().__init__()
        self.base = base
        place: dict[str, Any] = {"bias": False, "device": base.weight.device, "dtype": base.weight.dtype}
        self.down: nn.Module
        self.up: nn.Conv2d | nn.Linear
        if isinstance(base, nn.Linear):
            self.down, self.up = nn.Linear(base.in_features, rank, **place), nn.Linear(rank, base.out_features, **place)
        else:
            geometry = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
            self.down = nn.Conv2d(base.in_channels, rank, base.kernel_size, **geometry, **place)  # type: ignore[arg-type]
            height, width = base.kernel_size if up_kernel is UpKernel.same else (1, 1)
            self.up = nn.Conv2d(rank, base.out_channels, (height, width), padding=(height // 2, width // 2), **place)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(F.leaky_relu(self.down(x), 0.1))


def _loda(unet: Any, adapter: Adapter) -> None:
    for name in adapter.layer_names(unet):
        unet.set_submodule(name, LoDA(unet.get_submodule(name), adapter.rank, adapter.up_kernel))


def _lora(unet: Any, adapter: Adapter) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise unusable("method.adapter", "lora", "it needs peft, which is not installed") from error
    if names := adapter.layer_names(unet):
        inject_adapter_in_model(LoraConfig(r=adapter.rank, lora_alpha=adapter.rank, target_modules=names), unet)


def _attention(unet: Any, adapter: Adapter) -> None:
    for attention in _attentions(unet):
        attention.requires_grad_(True)


def _attentions(unet: nn.Module) -> list[nn.Module]:
    from diffusers.models.attention_processor import Attention

    return [module for module in unet.modules() if isinstance(module, Attention)]


def _norm_bias(unet: Any, adapter: Adapter) -> None:
    for module in unet.modules():
        for name, p in module.named_parameters(recurse=False):
            p.requires_grad_(name == "bias" or isinstance(module, (nn.GroupNorm, nn.LayerNorm)))


_APPLY: dict[AdapterName, Callable[[Any, Adapter], None]] = {
    AdapterName.loda: _loda,
    AdapterName.lora: _lora,
    AdapterName.attention: _attention,
    AdapterName.norm_bias: _norm_bias,
    AdapterName.full: lambda unet, adapter: None,
}


def _as_diffusers(lora: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """By the names that `load_lora_weights` of a pipeline knows."""
    return {name.replace(".default.", "."): p.detach().cpu().contiguous() for name, p in lora.items()}


def plain(adapter: Adapter) -> dict[str, Any]:
    """Its settings, as JSON may write them."""

    def value(v: Any) -> Any:
        return [value(item) for item in v] if isinstance(v, list) else getattr(v, "value", v)

    return {key: value(v) for key, v in asdict(adapter).items()}


def _typed(plain: dict[str, Any]) -> Adapter:
    return Adapter(
        kind=AdapterName(plain["kind"]),
        rank=plain["rank"],
        layers=[Layers(name) for name in plain["layers"]],
        pattern=plain["pattern"],
        up_kernel=UpKernel(plain["up_kernel"]),
    )
