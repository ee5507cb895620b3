"""The table from which a plan knows what the public networks cost."""

from __future__ import annotations

import json

import pytest

from conf.compose import compose
from models.costs import TABLE, key_of, look_up
from models.public.network import NetworkModel
from scripts.costs import table


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
