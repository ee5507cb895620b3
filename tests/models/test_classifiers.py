"""Classifiers: the published sizes, any image from 8×8, and norms under which rows do not see each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.classifiers.networks import ClassifierName, Norm, WideResNet, build_classifier
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


@pytest.mark.parametrize(
    ("name", "count"), [("wrn40_4", 8_949_210), ("resnet9", 6_573_130), ("resnet18", 11_173_962), ("resnet50", 23_520_842)]
)
def test_a_classifier_for_small_images_has_its_known_parameter_count(name, count):
    with torch.device("meta"):
        network = build_classifier(ClassifierName(name), 3, 10)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_tanh_cnn_has_the_weights_of_its_paper():
    with torch.device("meta"):
        network: Any = build_classifier(ClassifierName.tanh_cnn, 1, 10)
    assert sum(p.numel() for p in network.parameters()) == 26_010
    assert network.body[:3](torch.zeros(1, 1, 28, 28, device="meta")).shape[2:] == (13, 13)  # so that its pool changes nothing


def test_the_vgg_is_torchvisions_with_one_linear_layer():
    from torchvision.models import vgg11_bn

    ours: Any = build_classifier(ClassifierName.vgg, 3, 10).eval()
    with torch.device("meta"):
        theirs = vgg11_bn().features.eval()
    theirs.load_state_dict(ours.body[0].state_dict(), assign=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(ours(x), ours.head(theirs(x).flatten(1)), atol=1e-5)


@pytest.mark.parametrize("name", ClassifierName)
def test_every_classifier_takes_small_images_of_one_or_three_channels(name):
    with torch.device("meta"):
        for channels, norm, sides in ((1, Norm.batch, (8, 28, 64)), (3, Norm.group, (8, 32, 64))):
            network = build_classifier(name, channels, 7, norm).train()
            for side in sides:
                assert network(torch.empty(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", [ClassifierName.cnn, ClassifierName.resnet9, ClassifierName.resnet18, ClassifierName.vgg])
def test_with_group_norm_rows_do_not_see_each_other_in_training(name):
    x = torch.randn(4, 1, 8, 8)
    for norm, apart in ((Norm.group, True), (Norm.batch, False)):
        network = build_classifier(name, 1, 7, norm).train()
        with torch.no_grad():
            assert torch.allclose(network(x)[:2], network(x[:2]), atol=1e-5) is apart


def test_dropout_acts_in_training_alone():
    network, x = build_classifier(ClassifierName.wrn16_4, 1, 7, Norm.group, dropout=0.5), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert not torch.equal(network.train()(x), network(x))
        assert torch.equal(network.eval()(x), network(x))


def test_titles_are_those_of_papers():
    titles = [ClassifierName(name).title for name in ("wrn40_4", "wrn28_10", "resnet9", "vgg", "cnn", "lenet", "tanh_cnn")]
    assert titles == ["WRN-40-4", "WRN-28-10", "ResNet-9", "VGG", "CNN", "LeNet", "tanh CNN"]
