"""The table from which a plan knows what the public networks cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from conf.compose import compose
from dp_finetune.method import DPDiffusion
from models.api import Denoiser
from models.costs import TABLE, key_of, look_up
from models.diffusion.checkpointing import checkpoint_blocks
from models.public.network import NetworkModel
from models.public.unet import UNet
from scripts.costs import MODELS, table
from tests.command import ROOT


def test_the_table_has_what_is_counted_on_each_network():
    assert json.loads(TABLE.read_text()) == table(), "python -m scripts.costs writes it again"


def network(*changes: str) -> NetworkModel:
    model = compose(["model=digits_unet", "model.pretrained=null", *changes]).model
    assert isinstance(model, NetworkModel)
    return model


@pytest.mark.parametrize("change", ["model.image_size=16", "model.labels=11", "model.blocks=3", "model.scale_shift=true"])
def test_another_network_is_not_in_it(change):
    known, other = network(), network(change)
    networks = {costs["of"] for costs in json.loads(TABLE.read_text())["networks"].values()}
    assert key_of(known.described()) in networks
    assert key_of(other.described()) not in networks
    assert other.costs() != known.costs()


def test_what_is_not_in_it_is_counted_once():
    model = network("model.channels=[16,32]", "model.norm_groups=8")
    first = model.costs()
    assert first.parameters == sum(p.numel() for p in model.skeleton().network.parameters())
    assert look_up(model.described(), lambda: pytest.fail("it is counted again")) == first


def test_every_model_that_conf_describes_in_full_is_in_it():
    options = {file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")}
    assert options - set(MODELS) == {"callable", "diffusers", "own_unet", "printed_digits", "stable_diffusion"}


@dataclass(kw_only=True)
class PartOfIt(DPDiffusion):
    """An extension of a method, which says nowhere what it trains."""

    part: str = "conv_in"

    def prepare(self, unet: Any, seed: int) -> None:
        unet.requires_grad_(False)
        unet.get_submodule(self.part).requires_grad_(True)


@dataclass(kw_only=True)
class Narrower(UNet):
    """An extension of a model, whose network has another shape than its architecture says."""

    def skeleton(self) -> Denoiser:
        return network("model.channels=[16,32]", "model.norm_groups=8").skeleton()


def test_extensions_are_counted_themselves():
    model = network()
    first, second = (PartOfIt(part=part).costs(model) for part in ("conv_in", "mid_block"))
    assert first.parameters == sum(p.numel() for p in model.skeleton().network.conv_in.parameters())
    assert second.parameters == sum(p.numel() for p in model.skeleton().network.mid_block.parameters())
    narrower = Narrower(**vars(model))
    assert (
        narrower.costs().parameters == sum(p.numel() for p in narrower.skeleton().network.parameters()) < model.costs().parameters
    )


@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_a_pass_keeps_is_that_of_a_network_without_gradients(checkpointed):
    model, method = network(), DPDiffusion(gradient_checkpointing=checkpointed)
    skeleton = model.skeleton()
    if checkpointed:
        checkpoint_blocks(skeleton.network)
    assert method.costs(model).activation_bytes == skeleton.activation_bytes()
