"""The typed schema: every component's settings, registered once. A misspelt key or a wrong type fails at composition."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf

from baselines.methods import PublicOnly, RealData
from conf.sweep import register_resolvers
from data.camelyon17 import Camelyon17
from data.celeba import CelebA
from data.dataset import Dataset
from data.digits import Digits
from data.folder import Folder
from data.imagenet import ImageNet
from data.published import Published
from dp_finetune.loda import DPLoDA
from dp_finetune.method import DPDiffusion
from errors import InputError, require
from eval.config import Evaluation
from method.base import Method
from models.callable import CallableModel
from models.config import Model
from models.improved import ImprovedDiffusion
from models.pipeline import Diffusers
from models.renderer import PrintedDigits
from models.text_to_image import StableDiffusion
from models.unet import UNet
from pe.evolution import PrivateEvolution
from privacy.config import Privacy
from privacy.inherited import Inherited, PublicInput
from tracking.tracker import TrackerConfig

COMPONENTS: dict[str, dict[str, Any]] = {
    "dataset": {
        "digits": Digits,
        "published": Published,
        "camelyon17": Camelyon17,
        "celeba": CelebA,
        "imagenet": ImageNet,
        "folder": Folder,
    },
    "method": {
        "pe": PrivateEvolution,
        "dp_diffusion": DPDiffusion,
        "dp_loda": DPLoDA,
        "public_only": PublicOnly,
        "real_data": RealData,
    },
    "model": {
        "unet": UNet,
        "improved_diffusion": ImprovedDiffusion,
        "diffusers": Diffusers,
        "stable_diffusion": StableDiffusion,
        "callable": CallableModel,
        "printed_digits": PrintedDigits,
    },
    "privacy": {"budget": Privacy},
    "eval": {"evaluation": Evaluation},
    "tracker": {"tracker": TrackerConfig},
}


CONFIG_DIR = str(Path(__file__).parent)
SCALES = ("paper", "hour", "smoke")  # the printed setting; one GPU and about an hour; two cores, the embedded digits and seconds


@dataclass(kw_only=True)
class Config:
    dataset: Dataset = MISSING
    method: Method = MISSING
    model: Model = MISSING
    privacy: Privacy = MISSING
    eval: Evaluation = MISSING
    tracker: TrackerConfig = MISSING
    seed: int = 0  # everything but privacy noise
    device: str = "auto"
    scale: str = "paper"  # how far a paper's experiment is shrunk: +scale=hour, +scale=smoke
    plan_only: bool = False

    def check(self) -> None:
        """Raise InputError for any range or combination that cannot run. Opens no image and writes nothing."""
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2^63 - 1")
        check_device(self.device)
        require(self.scale in SCALES, "scale", self.scale, f"one of {', '.join(SCALES)}")
        self.privacy.check()
        self.dataset.check()
        self.model.check(self.dataset)
        self.method.check(self.dataset, self.model, self.privacy)
        self.eval.check(self.dataset, self.model)
        for name, evaluator in self.eval.evaluators.items():
            evaluator.check_sizes(f"eval.{name}", self.dataset, self.method.released(self.dataset))
        self.tracker.check()
        share, downstream = self.privacy.selection_epsilon, self.eval.downstream
        classes = self.method.conditional and len(self.dataset.classes) > 1
        choosing = downstream.enabled and len(downstream.candidates) > 1 and classes
        allowed = "null, as eval.downstream has nothing to choose from: see eval.downstream.choose_from"
        require(share is None or choosing, "privacy.selection_epsilon", share, allowed)

    @functools.cached_property
    def public_inputs(self) -> list[PublicInput]:
        """What the release depends on and is taken as public: weights, features, images that the user brings."""
        return [*self.model.public_inputs(self.method.embeddings()), *self.dataset.public_inputs()]

    @functools.cached_property
    def inherited(self) -> Inherited:
        """What those have spent on private images already. InputError where one was made from private images without noise."""
        return Inherited.of(self.public_inputs, self.model.base_is_other_data)

    @property
    def delta(self) -> float:
        return self.privacy.delta_for(self.dataset.num_private)

    @property
    def torch_device(self) -> torch.device:
        return torch_device(self.device)


def check_device(device: str) -> None:
    kinds = ("auto", "cpu", "cuda")
    well_formed = device in kinds or (device.startswith("cuda:") and device[5:].isdecimal())
    require(well_formed, "device", device, f"one of {', '.join(kinds)}, cuda:N")
    index = int(device[5:] or "0") if device.startswith("cuda") else -1
    require(index < torch.cuda.device_count(), "device", device, f"{torch.cuda.device_count()} CUDA GPUs are here")


def torch_device(device: str) -> torch.device:
    """`auto` is a CUDA GPU where there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if device == "auto" else device)


def register() -> None:
    register_resolvers()
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, options in COMPONENTS.items():
        for name, cls in options.items():
            store.store(group=f"schema/{group}", name=name, node=cls)


def compose_config(overrides: Sequence[str], name: str = "config", with_hydra: bool = False) -> DictConfig:
    """What `python run.py` would be given, or a script with `conf/<name>.yaml`; with Hydra's own settings where asked for."""
    register()
    GlobalHydra.instance().clear()  # of a command that ran in this process
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(name, list(overrides), return_hydra_config=with_hydra)


def compose_script(name: str, schema: type, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a script: `conf/<name>.yaml`, whose defaults start from `<name>_schema`."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    return compose_config(overrides, name)


def to_typed(cfg: DictConfig) -> Config:
    """The composed configuration as objects, checked."""
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    added_keys_refused(config)
    config.check()
    return config


def added_keys_refused(component: Any, prefix: str = "") -> None:
    """`+method.iteratons=3` adds a key that nothing would read."""
    names = [field.name for field in fields(component)]
    for name, value in vars(component).items():
        if name not in names:
            raise InputError(f"{prefix}{name}={value}: is no key; allowed: {', '.join(names)}")
        if is_dataclass(value):
            added_keys_refused(value, f"{prefix}{name}.")
