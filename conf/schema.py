"""The typed schema: every component's settings, registered once. A misspelt key or a wrong type fails at composition."""

from __future__ import annotations

import importlib
import os
from dataclasses import MISSING, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from baselines.methods import PublicOnly, RealData
from data.datasets.camelyon17 import Camelyon17
from data.datasets.celeba import CelebA
from data.datasets.digits import Digits
from data.datasets.folder import Folder
from data.datasets.imagenet import ImageNet
from data.datasets.medmnist import MedMNIST
from data.datasets.published import Published
from data.datasets.rehearsal import Rehearsal
from dp_finetune.classifier import DPClassifier
from dp_finetune.loda import DPLoDA
from dp_finetune.method import DPDiffusion
from dp_finetune.teacher import DPTeacher
from errors import unusable
from eval.config import Evaluation
from mean_embedding.method import DPMEPF, DPMERF
from models.public.callable import CallableModel
from models.public.improved import ImprovedDiffusion
from models.public.latent_unet import LatentUNet
from models.public.pipeline import Diffusers
from models.public.renderer import PrintedDigits
from models.public.text_to_image import StableDiffusion
from models.public.unet import UNet
from moments.method import DPMoments
from pe.evolution import PrivateEvolution
from pipeline.config import Config
from privacy.config import Privacy, PrivateSelection
from tracking.tracker import TrackerConfig

EXTENSIONS = "DP_SYNTHESIS_EXTENSIONS"  # in the environment: modules that call `add`, with commas between them

COMPONENTS: dict[str, dict[str, Any]] = {
    "dataset": {
        "digits": Digits,
        "published": Published,
        "rehearsal": Rehearsal,
        "camelyon17": Camelyon17,
        "celeba": CelebA,
        "imagenet": ImageNet,
        "medmnist": MedMNIST,
        "folder": Folder,
    },
    "method": {
        "dp_moments": DPMoments,
        "dp_merf": DPMERF,
        "dp_mepf": DPMEPF,
        "pe": PrivateEvolution,
        "dp_diffusion": DPDiffusion,
        "dp_loda": DPLoDA,
        "dp_teacher": DPTeacher,
        "dp_classifier": DPClassifier,
        "public_only": PublicOnly,
        "real_data": RealData,
    },
    "model": {
        "unet": UNet,
        "latent_unet": LatentUNet,
        "improved_diffusion": ImprovedDiffusion,
        "diffusers": Diffusers,
        "stable_diffusion": StableDiffusion,
        "callable": CallableModel,
        "printed_digits": PrintedDigits,
    },
    "privacy": {"budget": Privacy},
    "eval": {"evaluation": Evaluation},
    "tracker": {"tracker": TrackerConfig},
    "selection": {"private": PrivateSelection},
}


def register() -> None:
    """Let Hydra's configuration files name them as `/schema/<group>/<option>`. InputError for an extension that is not there."""
    for name in filter(None, os.environ.get(EXTENSIONS, "").split(",")):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise unusable(EXTENSIONS, name, "there is no such module beside run.py or on PYTHONPATH") from error
    store = ConfigStore.instance()
    known = store.repo.get("schema", {})
    for group, options in COMPONENTS.items():
        for name, cls in options.items():
            node = known.get(group, {}).get(f"{name}.yaml")
            if node is None or OmegaConf.get_type(node.node) is not cls:  # to make one takes a quarter of composing
                store.store(group=f"schema/{group}", name=name, node=cls)
    if "schema.yaml" not in store.repo:
        store.store(name="schema", node=Config)


def add(group: str, option: str, component: type[Any]) -> None:
    """One more component: `<group>=<option>` then stands for its defaults, on the command line and for `compose`, as long as
    `conf/<group>/` has no file of that name. Call it before anything is composed. See docs/extending.md.

    ValueError where its `name` has another default, as a stored run is read back by it, or where the option is taken.
    """
    if group not in COMPONENTS:
        raise ValueError(f"group={group}: one of {', '.join(COMPONENTS)}")
    own = next((field.default for field in fields(component) if field.name == "name"), option)  # evaluations have none
    if own != option:
        raise ValueError(f"{group}={option}: `name` of {component.__name__} must have the default {option!r}, not {own!r}")
    known = COMPONENTS[group].get(option, component)
    if (known.__module__, known.__name__) != (component.__module__, component.__name__):  # a notebook may define it anew
        raise ValueError(f"{group}={option}: is {known.__module__}.{known.__name__} already; give another name")
    COMPONENTS[group][option] = component
    ConfigStore.instance().store(group=group, name=option, node=component)


def added(group: str) -> dict[str, type[Any]]:
    """The options that `add` has brought, with their components."""
    names = {name.removesuffix(".yaml") for name in ConfigStore.instance().repo.get(group, {})}
    return {option: component for option, component in COMPONENTS.get(group, {}).items() if option in names}


def component_of(group: str, values: dict[str, Any]) -> Any:
    """The component whose stored settings these are; keys that it has and they lack keep their defaults.

    It is a registered one that knows all keys and has a value for every other one: the one of this `name`, or else, but for
    methods, the one with the fewest other keys. ValueError where there is none.
    """

    def others(cls: Any) -> list[Any]:
        return [f for f in fields(cls) if f.name not in values and f.default is MISSING and f.default_factory is MISSING]

    def unknown(cls: Any) -> set[str]:
        return values.keys() - {f.name for f in fields(cls)}

    fitting = [cls for cls in COMPONENTS[group].values() if not unknown(cls) and not others(cls)]
    named = [cls for cls in fitting if "name" in values and getattr(cls, "name", None) == values["name"]]
    chosen = named or ([] if group == "method" else fitting)
    if not chosen:
        raise ValueError(f"{group}: no component has the settings {', '.join(values)}")
    return min(chosen, key=lambda cls: len(fields(cls)))
