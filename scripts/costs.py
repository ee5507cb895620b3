"""What the public networks of conf/model/ cost: models/costs.json, from which a plan has it at once.

    python -m scripts.costs                 # counts and writes it again

To be run where one of them is added or changed; a test tells.
"""

from __future__ import annotations

from dataclasses import asdict

from conf.compose import compose
from conf.help import run_script
from disk import write_json
from errors import require
from models.costs import TABLE, count, key_of
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


def main(arguments: list[str]) -> None:
    require(not arguments, "arguments", " ".join(arguments), "none")
    write_json(TABLE, table())
    print(TABLE)


def table() -> dict[str, dict[str, str | int]]:
    """By the options of `model`: what tells the network from every other, and what it costs."""
    found = {}
    for name in MODELS:
        model = compose([f"model={name}", "tuned=none"]).model
        assert isinstance(model, NetworkModel)
        found[name] = {"network": key_of(model.shape()), **asdict(count(model.skeleton()))}
    return found


if __name__ == "__main__":
    run_script(main, __doc__)
