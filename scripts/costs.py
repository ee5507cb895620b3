"""What the public networks of conf/model/ and the usual judges cost: models/costs.json, from which a plan has it at once.

    python -m scripts.costs                 # counts and writes it again

To be run where one of them is added or changed; a test tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from conf.compose import compose
from conf.help import run_script
from disk import write_json
from errors import require
from models.classifiers.networks import ClassifierName
from models.classifiers.training import Recipe
from models.costs import TABLE, count, key_of
from models.embedded import embedded_or
from models.features.extractors import PASS_ROWS, stored_features
from models.features.spaces import FILE
from models.flops import count_pass, described_pass
from models.public.network import NetworkModel

MODELS = (
    "digits_unet",
    "dpd_32",
    "dpd_mnist",
    "improved_diffusion_imagenet64_cond",
    "improved_diffusion_imagenet64_uncond",
    "latent_unet",
    "latent_unet_32",
    "loda_unet",
    "mnist_patches",
    "mnist_unet",
    "unet_32",
)
FEATURES = (("digits", 8), ("printed28", 28))  # folders of models/weights, and the sides of their images
CLASSIFIERS = ((ClassifierName.wrn40_4, 8), (ClassifierName.cnn, 8), (ClassifierName.lenet, 28), (ClassifierName.wrn40_4, 28))


def main(arguments: list[str]) -> None:
    require(not arguments, "arguments", " ".join(arguments), "none")
    write_json(TABLE, table())
    print(TABLE)


def table() -> dict[str, dict[str, Any]]:
    """By section and name: what tells a network from every other (`of`), and what it costs."""
    return {"networks": dict(_networks()), "passes": dict(_passes())}


def _networks() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in MODELS:
        model = compose([f"model={name}", "tuned=none"]).model
        assert isinstance(model, NetworkModel)
        yield name, {"of": key_of(model.described()), **asdict(count(model.skeleton()))}


def _passes() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, side in FEATURES:
        network = stored_features(embedded_or(name) / FILE, "model.features")
        for rows in (1, PASS_ROWS):
            yield from _pass(f"features of {name}", network, side, rows)
    for classifier, side in CLASSIFIERS:
        with torch.device("meta"):
            yield from _pass(classifier.title, Recipe(classifier=classifier).network(1, 10), side, 1)


def _pass(name: str, network: nn.Module, side: int, rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    image = (side, side, 1)
    found = asdict(count_pass(network, image, rows))
    yield f"{name}, {rows} of {side}x{side}", {"of": key_of(described_pass(network, image, rows)), **found}


if __name__ == "__main__":
    run_script(main, __doc__)
