"""What the public networks of conf/model/ and the usual judges cost: models/costs.json, from which a plan has it at once.

    python -m scripts.costs                 # counts and writes it again

To be run where one of them is added or changed; a test tells. What is not in it is counted where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from conf.compose import compose
from conf.help import run_script
from disk import write_json
from dp_finetune.method import DPDiffusion
from errors import require
from models.classifiers.networks import ClassifierName
from models.classifiers.training import Recipe
from models.costs import SECTIONS, TABLE, counting
from models.embedded import embedded_or
from models.features.extractors import PASS_ROWS, stored_features
from models.features.spaces import FILE
from models.flops import pass_costs
from moments.warm_up import WarmUp

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
TRAININGS = tuple((model, method) for model in ("digits_unet", "mnist_patches") for method in ("dp_diffusion", "dp_loda"))
CLASSIFIERS = ((ClassifierName.wrn40_4, 8), (ClassifierName.cnn, 8), (ClassifierName.lenet, 28), (ClassifierName.wrn40_4, 28))


def main(arguments: list[str]) -> None:
    require(not arguments, "arguments", " ".join(arguments), "none")
    write_json(TABLE, table())
    print(TABLE)


def table() -> dict[str, dict[str, dict[str, Any]]]:
    """By section and name: what tells a network from every other (`of`), and what it costs."""
    found: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in SECTIONS}
    with counting() as counted:
        for name, ask in _questions():
            ask()
            ((key, costs),) = counted.items()
            section = next(section for section, kind in SECTIONS.items() if isinstance(costs, kind))
            found[section][name] = {"of": key, **asdict(costs)}
            counted.clear()
    return found


def _questions() -> Iterator[tuple[str, Callable[[], Any]]]:
    """The name of each entry, and what looks it up."""
    for name in MODELS:
        yield name, compose([f"model={name}", "tuned=none"]).model.costs
    for name, method in TRAININGS:
        config = compose([f"model={name}", f"method={method}", "tuned=none"])
        assert isinstance(config.method, DPDiffusion)
        yield f"{method} of {name}", partial(config.method.costs, config.model)
    for name in sorted({name for name, _ in TRAININGS}):
        yield f"warm-up of {name}", partial(WarmUp(epsilon=1.0).training_costs, compose([f"model={name}", "tuned=none"]).model)
    for name, side in FEATURES:
        features = stored_features(embedded_or(name) / FILE, "model.features")
        for rows in (1, PASS_ROWS):
            yield f"features of {name}, {rows} of {side}x{side}", partial(pass_costs, features, (side, side, 1), rows)
    for classifier, side in CLASSIFIERS:
        with torch.device("meta"):
            network = Recipe(classifier=classifier).network(1, 10)
        yield f"{classifier.title}, 1 of {side}x{side}", partial(pass_costs, network, (side, side, 1), 1)


if __name__ == "__main__":
    run_script(main, __doc__)
