"""Wide ResNets: the published sizes."""

from __future__ import annotations

import pytest
import torch

from models.classifiers import WideResNet
from tests.facts import FACTS

SIZES = {"wrn.40-4": (40, 4), "wrn.16-4": (16, 4), "wrn.28-8": (28, 8), "wrn.28-10": (28, 10), "wrn.40-4.2class": (40, 4)}


@pytest.mark.parametrize("name", SIZES)
def test_a_network_has_its_golden_parameter_count(name):
    depth, width = SIZES[name]
    with torch.device("meta"):
        network = WideResNet(depth, width, num_classes=FACTS[name]["inputs"]["num_classes"])
    assert sum(p.numel() for p in network.parameters()) == FACTS[name]["computed_value"]


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (1, 28)])
def test_a_network_maps_images_of_any_side_to_logits(channels, side):
    network = WideResNet(10, 1, channels, num_classes=7).eval()
    x = torch.randn(4, channels, side, side)
    with torch.inference_mode():
        assert network(x).shape == (4, 7)
        assert torch.allclose(network(x[[2, 0]]), network(x)[[2, 0]], atol=1e-5)


@pytest.mark.parametrize("depth", [39, 41])
def test_a_depth_that_does_not_exist_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth={depth} is not 6n"):
        WideResNet(depth)
