"""What configuration files may use besides values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import MissingMandatoryValue

from data.dataset import Dataset
from errors import InputError, require
from privacy.mechanisms import Unit
from store.identity import digest

FACTS: dict[str, Callable[[Dataset], int]] = {
    "classes": lambda dataset: len(dataset.classes),
    "side": lambda dataset: dataset.shape[0],
    "channels": lambda dataset: dataset.shape[2],
    "patch": lambda dataset: min(4, -(-dataset.shape[0] // 8)),  # of fewer numbers than the network has channels
    "batch": lambda dataset: min(4096, -(-dataset.num_private // 5)),
}


def register_resolvers() -> None:
    """What configuration files may use besides values.

    `${run_store:FOLDER}`: where the run with these settings lies. `${at:PAPER,SMOKE}` or `${at:PAPER,SMOKE,HOUR}`: by scale.
    `${times:A,B}`: their product, a whole number.
    `${by:KEY,{VALUE:A,VALUE:B}}`: by another setting, of which a sweep gives several values.
    `${part_of_epsilon:PART,ELSE}`: that part of privacy.epsilon, or ELSE where that is null.
    `${falling:HIGH,STEP,SMOKE_HIGH,SMOKE_STEP}`: HIGH, HIGH - STEP, … down to 1: a variation degree for each of
    `method.iterations` rounds.
    `${of_images:FACT}`: what follows from the listing of `dataset`: its `classes`, `side` and `channels`, the `patch` of a
    network for it, a `batch` of a fifth of its private units.
    """

    def run_store(folder: str, *, _root_: DictConfig) -> str:
        try:
            config = OmegaConf.to_object(_without_hydra(_root_))
        except MissingMandatoryValue:
            return str((Path.cwd() / folder / "refused").absolute())  # which the run then is, with its reason
        return str((Path.cwd() / folder / digest(config)).absolute())

    def at(paper: Any, smoke: Any, hour: Any = None, *, _root_: DictConfig) -> Any:
        return {"paper": paper, "smoke": smoke, "hour": paper if hour is None else hour}[_root_.scale]

    def by(key: str, values: dict[Any, Any], *, _root_: DictConfig) -> Any:
        value = OmegaConf.select(_root_, key)
        require(value in values, key, value, f"one of {', '.join(map(str, values))}, which the experiment has settings for")
        return values[value]

    def falling(high: float, step: float, smoke_high: float, smoke_step: float, *, _root_: DictConfig) -> list[float]:
        high, step = (smoke_high, smoke_step) if _root_.scale == "smoke" else (high, step)
        return [max(1, high - step * i) for i in range(_root_.method.iterations)]

    def of_images(fact: str, *, _root_: DictConfig) -> int:
        try:
            dataset = OmegaConf.to_object(_root_.dataset)
            assert isinstance(dataset, Dataset)
            dataset.unit = Unit(OmegaConf.select(_root_, "privacy.unit", default=Unit.image))
            return FACTS[fact](dataset)
        except (InputError, MissingMandatoryValue, OSError):
            return 1  # the check of the dataset tells its user

    OmegaConf.register_new_resolver("of_images", of_images, replace=True)
    OmegaConf.register_new_resolver("run_store", run_store, replace=True)
    OmegaConf.register_new_resolver("times", lambda a, b: round(a * b), replace=True)
    OmegaConf.register_new_resolver("at", at, replace=True)
    OmegaConf.register_new_resolver("by", by, replace=True)

    def part_of_epsilon(part: float, otherwise: float, *, _root_: DictConfig) -> float:
        whole = _root_.privacy.epsilon
        return otherwise if whole is None else part * whole

    OmegaConf.register_new_resolver("part_of_epsilon", part_of_epsilon, replace=True)
    OmegaConf.register_new_resolver("falling", falling, replace=True)


def _without_hydra(root: DictConfig) -> DictConfig:
    """Hydra's own settings refer to this resolver."""
    copied = copy.deepcopy(root)
    with flag_override(copied, ["struct", "readonly"], [False, False]):
        copied.pop("hydra", None)
    return copied
