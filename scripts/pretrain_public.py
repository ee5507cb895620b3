"""Train a public model on the public counterpart of a dataset. No private image is opened.

    python -m scripts.pretrain_public                                  # what `model=digits_unet` ships; 25 minutes on 2 cores
    python -m scripts.pretrain_public +pretraining=loda_cifar10_step1  # a recipe of conf/pretraining; --help lists them
    python -m scripts.pretrain_public … model.pretrained=FOLDER        # go on from an earlier step's weights
    python -m scripts.pretrain_public … out=FOLDER recipe.steps=100    # any key=value
    torchrun --nproc_per_node=8 -m scripts.pretrain_public …           # every batch shared among processes; with GPUs, one each

Writes `unet/` and `scheduler/` as diffusers has them (and `features.safetensors`, where `features_steps` is not 0) under `out`,
which `model.pretrained=` then names. A killed run goes on with the same command.

`public_images.npy` holds digests of the images it was trained on: a run whose private images are among them is refused. Where the
weights or images that it starts from come from a private release, `privacy.json` says what they spent, and a run counts it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING, OmegaConf
from safetensors.torch import save

from conf.compose import compose_script
from conf.help import run_script
from data.dataset import Dataset
from data.overlap import PUBLIC_DIGESTS, digests_beside, pixel_digests
from data.samples import SampleSet
from disk import whole_file
from errors import reject_unless, require, unusable
from models.diffusion.autoencoder import Autoencoder
from models.diffusion.stored import VAE, load_vae, save_part, save_schedule
from models.public.autoencoding import train_autoencoder
from models.public.latent_unet import LatentUNet
from models.public.network import Precision
from models.public.pretraining import PretrainingConfig, pretrain, stand_ins, train_features
from models.public.settings import Model
from models.public.unet import UNet
from pipeline.config import check_device, refuse_added_keys, torch_device
from privacy.inherited import CERTIFICATE, Inherited, PublicInput, carry_certificate
from tracking import ranks
from tracking.progress import progress

PARTS = (CERTIFICATE, PUBLIC_DIGESTS, "features.safetensors", "scheduler", VAE, "unet")  # the U-Net last: all is there then
AUTOENCODER = "autoencoder"  # trained, and kept for the training of the U-Net
CONF = Path(__file__).parent.parent / "conf"


@dataclass(kw_only=True)
class Pretraining:
    dataset: Dataset = MISSING
    model: Model = MISSING
    recipe: PretrainingConfig = field(default_factory=PretrainingConfig)
    out: str = MISSING
    half: bool = False  # float16 halves the file; it is loaded as float32
    features_steps: int = 0  # of a feature extractor beside the U-Net
    autoencoder_steps: int = 0  # of model=latent_unet's autoencoder; 0: as model.pretrained has it
    seed: int = 0
    precision: Precision = Precision.auto
    device: str = "auto"


def main(overrides: list[str]) -> None:
    # Setup
    settings = _settings(overrides)
    dataset, model, recipe, out = settings.dataset, settings.model, settings.recipe, Path(settings.out)
    assert isinstance(model, UNet)
    model.prepare()
    samples = dataset.public()
    features_on = samples
    if recipe.classes is not None:
        samples = stand_ins(samples, dataset.public_classes, recipe.classes, model.labels)
    elif recipe.conditional:
        require(
            samples.num_classes <= model.labels,
            "model.labels",
            model.labels,
            f"at least {samples.num_classes}, the number of public classes",
        )
    inputs = [*model.public_inputs(), *dataset.public_inputs()]
    inherited = Inherited.of(inputs)
    device = ranks.start(torch_device(settings.device))
    generator = model.build(dataset, device, settings.seed).denoiser
    work = out / "unfinished"
    if first := ranks.rank() == 0:
        begun = {one.key: one.sha256() for one in inputs}
        told = {"inputs": begun, "images": features_on.digest(), "spent": [spend.to_dict() for spend in inherited.spends]}
        _same_settings(work, f"{OmegaConf.to_yaml(OmegaConf.structured(settings))}# {json.dumps(told)}\n")
    ranks.wait()

    # Run
    if first and settings.features_steps and not (work / "features.safetensors").exists():
        with progress("feature extractor", settings.features_steps) as advance:
            network = train_features(features_on, settings.features_steps, recipe.batch_size, settings.seed, advance, device)
        with whole_file(work / "features.safetensors") as file:
            file.write(save(network.state_dict()))
    latents = getattr(generator, "autoencoder", None)
    if latents is not None and settings.autoencoder_steps:
        _train_autoencoder(latents, features_on, settings, work, device)
    with progress("U-Net on public images", recipe.steps) as advance:
        done = 0
        bfloat16 = settings.precision.is_bfloat16(device)
        for step in pretrain(generator, samples, recipe, settings.seed, work / "training.pt", bfloat16):
            advance(step - done)
            done = step

    # Report
    ranks.stop()
    if not first:
        return
    generator.network.to(memory_format=torch.contiguous_format)  # safetensors knows no other
    unet: Any = generator.network.half() if settings.half else generator.network
    made = work / "done"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    save_part(unet, made / "unet")
    if latents is not None:
        save_part(latents.network.half() if settings.half else latents.network, made / VAE)
    save_schedule(generator.alpha_bar, made / "scheduler")
    if settings.features_steps:
        shutil.copy(work / "features.safetensors", made)
    if inherited.spends:
        carry_certificate(inherited.certificate(), made)
    if (seen := _digests(features_on, dataset.renders_public, inputs)) is not None:
        np.save(made / PUBLIC_DIGESTS, seen)
    for name in PARTS:
        if (made / name).exists():
            shutil.rmtree(out / name, ignore_errors=True)
            os.replace(made / name, out / name)
    shutil.rmtree(work)
    print(f"{recipe.steps} steps on {len(samples):,} public images: {out}")


def _train_autoencoder(latents: Autoencoder, samples: SampleSet, settings: Pretraining, work: Path, device: torch.device) -> None:
    """Once: all processes then go on from what the first has written."""
    if not ranks.broadcast((work / AUTOENCODER).exists()):
        where, size = work / "autoencoder.pt", settings.recipe.batch_size
        with progress("autoencoder", settings.autoencoder_steps) as advance:
            done = 0
            for step in train_autoencoder(latents, samples, settings.autoencoder_steps, size, settings.seed, where, device):
                advance(step - done)
                done = step
        if ranks.rank() == 0:
            save_part(latents.network, work / "partial" / VAE)
            os.replace(work / "partial", work / AUTOENCODER)
    ranks.wait()
    trained = load_vae(work / AUTOENCODER)
    latents.network.load_state_dict(trained.state_dict())
    latents.network.register_to_config(scaling_factor=trained.config.scaling_factor)


def _digests(samples: SampleSet, rendered: bool, inputs: Sequence[PublicInput]) -> np.ndarray | None:
    """Of the public images, but for rendered ones, and of those that the weights to start from were trained on."""
    before = digests_beside([one.path for one in inputs])
    found = [] if rendered else [pixel_digests(samples.images)]
    found += [] if before is None else [before]
    return np.unique(np.concatenate(found)) if found else None


def _settings(overrides: list[str]) -> Pretraining:
    settings: Any = OmegaConf.to_object(compose_script("pretrain", Pretraining, overrides))
    assert isinstance(settings, Pretraining)
    refuse_added_keys(settings)
    settings.dataset.check()
    settings.model.check(settings.dataset)
    made, there = settings.model.image_shape, settings.dataset.shape
    problem = f"it makes {made}, and dataset={settings.dataset.name} has {there}"
    reject_unless(made == there, "model", settings.model.name, problem)
    settings.recipe.check(settings.model.null_label, settings.model.num_steps)
    check_device(settings.device)
    require(settings.features_steps >= 0, "features_steps", settings.features_steps, "0 or more")
    trains = isinstance(settings.model, LatentUNet) and settings.model.pretrained is None
    other = "model.pretrained has one" if isinstance(settings.model, LatentUNet) else "the model has none"
    allowed = "1 or more, as model.pretrained is null" if trains else f"0, as {other}"
    steps = settings.autoencoder_steps
    require(steps >= 1 if trains else steps == 0, "autoencoder_steps", steps, allowed)
    require(settings.dataset.num_public > 0, "dataset", settings.dataset.name, "one with public images")
    out = Path(settings.out)
    require(not (out / "unet").exists(), "out", settings.out, "a folder that holds no U-Net yet")
    return settings


def _same_settings(work: Path, settings: str) -> None:
    stored = work / "settings.yaml"
    if stored.exists() and stored.read_text() != settings:
        problem = "it holds an unfinished training with other settings, images or weights"
        raise unusable("out", work.parent, f"{problem}; give another folder, or remove {work}")
    work.mkdir(parents=True, exist_ok=True)
    stored.write_text(settings)


if __name__ == "__main__":
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        for path in sorted((CONF / "pretraining").glob("*.yaml")):
            print(f"  +pretraining={path.stem:<24} {path.read_text().splitlines()[1].lstrip('# ')}")
        sys.exit(0)
    run_script(main)
