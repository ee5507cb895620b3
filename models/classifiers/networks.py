"""Classifiers that judge samples, for images of 8×8 to 64×64 pixels."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F
from torch import nn


class ClassifierName(Enum):
    wrn40_4 = "wrn40_4"
    wrn16_4 = "wrn16_4"
    wrn28_8 = "wrn28_8"
    wrn28_10 = "wrn28_10"
    resnet9 = "resnet9"
    resnet18 = "resnet18"
    resnet50 = "resnet50"
    vgg = "vgg"
    cnn = "cnn"  # pools over the whole image, so it knows little of where a stroke is
    lenet = "lenet"  # keeps the places
    tanh_cnn = "tanh_cnn"  # 26,010 weights for 28×28 grey pixels and 10 classes: little to hide, so little noise

    @property
    def title(self) -> str:
        """As papers write it."""
        if self in _WIDE:
            return f"WRN-{self.value[3:].replace('_', '-')}"
        if self is ClassifierName.tanh_cnn:
            return "tanh CNN"
        return self.value.replace("resnet", "ResNet-").replace("vgg", "VGG").replace("cnn", "CNN").replace("lenet", "LeNet")


class Norm(Enum):
    batch = "batch"
    group = "group"  # min(16, channels) groups: rows do not see each other, as DP-SGD needs


_WIDE = {
    ClassifierName.wrn40_4: (40, 4),
    ClassifierName.wrn16_4: (16, 4),
    ClassifierName.wrn28_8: (28, 8),
    ClassifierName.wrn28_10: (28, 10),
}


class Classifier(nn.Module):
    """Features [N, D] of images by `body`, logits by a linear `head`."""

    def __init__(self, body: nn.Module, dim: int, num_classes: int):
        super().__init__()
        self.body, self.head = body, nn.Linear(dim, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    def replace_head(self, num_classes: int) -> None:
        """Fresh weights, for other classes."""
        self.head = nn.Linear(self.head.in_features, num_classes, device=self.head.weight.device)


class WideBlock(nn.Module):
    """Two pre-activated 3×3 convolutions, dropout between them, and a shortcut (Zagoruyko & Komodakis 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels_in), nn.BatchNorm2d(channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        same = channels_in == channels_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.norm1(x))
        identity = x if self.shortcut is None else self.shortcut(out)
        hidden = F.relu(self.norm2(self.conv1(out)))
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout, self.training)
        return self.conv2(hidden) + identity


class WideResNet(Classifier):
    """WRN-depth-width; WRN-40-4 has 8,949,210 parameters for 3 channels and 10 classes."""

    def __init__(self, depth: int = 40, width: int = 4, channels: int = 3, num_classes: int = 10, dropout: float = 0.0):
        if (depth - 4) % 6:
            raise ValueError(f"depth={depth} is not 6n + 4")
        blocks, sizes = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
        for group in range(3):
            for i in range(blocks):
                channels_in = sizes[group] if i == 0 else sizes[group + 1]
                layers.append(WideBlock(channels_in, sizes[group + 1], 2 if i == 0 and group > 0 else 1, dropout))
        body = nn.Sequential(*layers, nn.BatchNorm2d(sizes[3]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(body, sizes[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)


def build_classifier(
    name: ClassifierName, channels: int, num_classes: int, norm: Norm = Norm.batch, dropout: float = 0.0
) -> Classifier:
    """With weights from torch's global generator. `dropout` is of wide ResNets alone."""
    if name in _WIDE:
        network: Classifier = WideResNet(*_WIDE[name], channels, num_classes, dropout)
    else:
        network = Classifier(*_BODIES[name](channels), num_classes)
    if norm is Norm.group:
        _group_norms(network)
    return network


def has_dropout(name: ClassifierName) -> bool:
    return name in _WIDE


def _group_norms(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(min(16, child.num_features), child.num_features))


def _conv(channels_in: int, channels_out: int, *after: nn.Module) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(), *after)


class _Residual(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def _cnn(channels: int) -> tuple[nn.Module, int]:
    layers = _conv(channels, 32, nn.MaxPool2d(2)), _conv(32, 64, nn.MaxPool2d(2)), _conv(64, 128)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 128


def _lenet(channels: int) -> tuple[nn.Module, int]:
    """LeCun et al. 1998, as it is trained today: ReLU, max pooling, wider, no normalisation.

    The dense layer sees 7×7 places, which is what 28×28 pixels leave; other sizes are averaged or repeated to that.
    """
    first = nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU()), 128


def _tanh_cnn(channels: int) -> tuple[nn.Module, int]:
    """Papernot et al. 2021, table of the MNIST network, made for DP-SGD: bounded activations keep gradients short.

    The second convolution sees 13×13 places, which is what 28×28 pixels leave; other sizes are averaged or repeated to that.
    """
    first = nn.Conv2d(channels, 16, 8, 2, padding=3), nn.Tanh(), nn.MaxPool2d(2, 1), nn.AdaptiveAvgPool2d(13)
    second = nn.Conv2d(16, 32, 4, 2), nn.Tanh(), nn.MaxPool2d(2, 1)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32 * 16, 32), nn.Tanh()), 32


def _resnet9(channels: int) -> tuple[nn.Module, int]:
    """DAWNBench's (Coleman et al. 2017; D. Page 2018)."""
    first = _conv(channels, 64), _conv(64, 128, nn.MaxPool2d(2)), _Residual(_conv(128, 128), _conv(128, 128))
    second = _conv(128, 256, nn.MaxPool2d(2)), _conv(256, 512, nn.MaxPool2d(2)), _Residual(_conv(512, 512), _conv(512, 512))
    return nn.Sequential(*first, *second, nn.AdaptiveMaxPool2d(1), nn.Flatten()), 512


def _resnet(make: str, channels: int) -> tuple[nn.Module, int]:
    """torchvision's, with the stem for small images: 3×3 of stride 1, no pooling."""
    import torchvision

    network = getattr(torchvision.models, make)()
    dim = network.fc.in_features
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool, network.fc = nn.Identity(), nn.Identity()
    return network, dim


def _vgg(channels: int) -> tuple[nn.Module, int]:
    """torchvision's VGG-11; a pool of one pixel keeps it, so that 8×8 pixels last."""
    from torchvision.models import vgg

    layers = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
    layers[0] = nn.Conv2d(channels, 64, 3, padding=1)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 512


_BODIES: dict[ClassifierName, Callable[[int], tuple[nn.Module, int]]] = {
    ClassifierName.resnet9: _resnet9,
    ClassifierName.resnet18: lambda channels: _resnet("resnet18", channels),
    ClassifierName.resnet50: lambda channels: _resnet("resnet50", channels),
    ClassifierName.vgg: _vgg,
    ClassifierName.cnn: _cnn,
    ClassifierName.lenet: _lenet,
    ClassifierName.tanh_cnn: _tanh_cnn,
}
