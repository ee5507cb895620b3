"""Checkpoints of improved-diffusion (Nichol & Dhariwal 2021) as diffusers' `UNet2DModel`: the same function, other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

State = Mapping[str, torch.Tensor]

_OUTSIDE_THE_BLOCKS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}


def to_unet(state: State, image_size: int, num_heads: int = 4) -> Any:
    """The U-Net of a checkpoint's state dict, its shape read from the weights; ValueError for another architecture.

    `num_heads` (4 in every official model) and `image_size` leave no trace in the weights. A model with a learned variance
    has twice the input's channels as output: the noise, then the variance.
    """
    from diffusers import UNet2DModel

    try:
        unet: Any = UNet2DModel(sample_size=image_size, **_shape(state, num_heads))
        unet.load_state_dict(_renamed(state, len(unet.config.block_out_channels), unet.config.layers_per_block, num_heads))
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"not a checkpoint of improved-diffusion with {num_heads} heads: {error}") from None
    set_heads(unet, num_heads)
    return unet


def set_heads(unet: torch.nn.Module, num_heads: int) -> None:
    """The same number of heads at every width, which `UNet2DModel` cannot be configured to: it has heads of one width."""
    from diffusers.models.attention_processor import Attention

    for module in unet.modules():
        if isinstance(module, Attention):
            module.scale = (module.inner_dim // num_heads) ** -0.5
            module.heads = num_heads


def _shape(state: State, num_heads: int) -> dict[str, Any]:
    """The arguments of `UNet2DModel` but the image's size."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("input_blocks."))
    downsamplers = [i for i in range(1, last + 1) if f"input_blocks.{i}.0.op.weight" in state]
    blocks = (last - len(downsamplers)) // (len(downsamplers) + 1)
    level_ends = [i - 1 for i in downsamplers] + [last]
    channels = [state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in level_ends]
    attends = [f"input_blocks.{i}.1.qkv.weight" in state for i in level_ends]
    modulation, norm = state["input_blocks.1.0.emb_layers.1.weight"], state["input_blocks.1.0.out_layers.0.weight"]
    return {
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": state["out.2.weight"].shape[0],
        "layers_per_block": blocks,
        "block_out_channels": tuple(channels),
        "down_block_types": tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
        "up_block_types": tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
        "resnet_time_scale_shift": "scale_shift" if len(modulation) == 2 * len(norm) else "default",
        "num_class_embeds": len(state["label_emb.weight"]) if "label_emb.weight" in state else None,
        "attention_head_dim": channels[-1] // num_heads,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def _renamed(state: State, levels: int, blocks: int, num_heads: int) -> dict[str, torch.Tensor]:
    """The weights under diffusers' names; KeyError for a name that has none."""
    places = _OUTSIDE_THE_BLOCKS | dict(_places(levels, blocks))
    renamed = {}
    for name, weight in state.items():
        place, kind = name.rsplit(".", 1)
        if place.endswith(".qkv"):
            attention = places[place]
            for to, part in zip(("to_q", "to_k", "to_v"), _split_heads(weight, num_heads), strict=True):
                renamed[f"{attention}.{to}.{kind}"] = part
        else:
            pointwise = place.endswith(".proj_out") and kind == "weight"  # a convolution there, a linear map here
            renamed[f"{places[place]}.{kind}"] = weight.flatten(1) if pointwise else weight
    return renamed


def _places(levels: int, blocks: int) -> Iterator[tuple[str, str]]:
    """(name there, name here) of every layer inside the blocks."""
    for level in range(levels):
        down = 1 + level * (blocks + 1)
        for block in range(blocks):
            yield from _resnet_and_attention(f"input_blocks.{down + block}", f"down_blocks.{level}", block)
        yield f"input_blocks.{down + blocks}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
        up = level * (blocks + 1)
        for block in range(blocks + 1):
            yield from _resnet_and_attention(f"output_blocks.{up + block}", f"up_blocks.{level}", block)
            for position in (1, 2):  # after the attention, where there is one
                yield f"output_blocks.{up + block}.{position}.conv", f"up_blocks.{level}.upsamplers.0.conv"
    yield from _resnet_and_attention("middle_block", "mid_block", 0)
    for there, here in _RESNET.items():
        yield f"middle_block.2.{there}", f"mid_block.resnets.1.{here}"


def _resnet_and_attention(there: str, here: str, index: int) -> Iterator[tuple[str, str]]:
    for old, new in _RESNET.items():
        yield f"{there}.0.{old}", f"{here}.resnets.{index}.{new}"
    yield f"{there}.1.qkv", f"{here}.attentions.{index}"
    for old, new in _ATTENTION.items():
        yield f"{there}.1.{old}", f"{here}.attentions.{index}.{new}"


def _split_heads(qkv: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of rows that come head by head, each head's three one after the other."""
    by_head = qkv.flatten(1) if qkv.dim() > 1 else qkv
    return tuple(part.flatten(0, 1) for part in by_head.unflatten(0, (num_heads, 3, -1)).unbind(1))
