"""From overrides to checked settings. The only place that composes, besides Hydra's own command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from conf.resolvers import register_resolvers
from conf.schema import COMPONENTS, component_of
from conf.schema import register as register_schema
from errors import require
from pipeline.config import Config

CONFIG_DIR = str(Path(__file__).parent)
TUNED = Path(CONFIG_DIR, "tuned")
# need no public model, or make a random one
WITHOUT_WEIGHTS = ("dp_moments", "dp_merf", "dp_diffusion", "dp_teacher", "dp_classifier")
OWN_COUNTS = {"dataset.class_counts": "moments"}  # classes have any sizes, and these cost nothing more
_COMPLETED = {"config": ("method", "eval", "model", "dataset"), "evaluate": ("eval", "model")}  # the groups, by configuration
OWN_IMAGES = {"method": "dp_moments", "eval": "own_images"}  # none needs public weights or a GPU


def register() -> None:
    register_resolvers()
    register_schema()


def compose(overrides: Sequence[str] = ()) -> Config:
    """What `python run.py OVERRIDES` would run, for `pipeline.run`: `compose(["method=pe", "privacy.epsilon=1"])`.

    Hydra's errors (a misspelt key, a wrong type) come as they are; ranges and combinations are checked by `Config.check`.
    """
    return to_typed(compose_config(overrides))


def compose_config(overrides: Sequence[str], name: str = "config", with_hydra: bool = False) -> DictConfig:
    """What `python run.py` would be given, or a script with `conf/<name>.yaml`; with Hydra's own settings where asked for."""
    register()
    check_tuned(overrides)
    overrides = completed(overrides, name)
    GlobalHydra.instance().clear()  # of a command that ran in this process
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return hydra_compose(name, list(overrides), return_hydra_config=with_hydra)


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of the sweep that `python run.py -m OVERRIDES` would be, with those of its experiment."""
    every = _each(overrides)
    own = compose_config(every[0], with_hydra=True).hydra.sweeper.get("params") or {}
    return _each([*(f"{key}={value}" for key, value in own.items()), *overrides])


def _each(overrides: Sequence[str]) -> list[list[str]]:
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)[0]


def completed(overrides: Sequence[str], name: str = "config") -> list[str]:
    """With what `dataset=folder` runs where no model is named: no public model at hand is like the images of a user. Of a
    script's configuration, with those groups that it has.

    Hydra lets no option of one group choose that of another, but in an experiment, and those say both.
    """
    chosen = {override.partition("=")[0].lstrip("+") for override in overrides}
    groups = _COMPLETED.get(name, ())
    if not groups or "dataset=folder" not in overrides or chosen & {"experiment", "model"}:
        return list(overrides)
    usual = dict(OWN_IMAGES)
    if "method" not in chosen or {f"method={name}" for name in WITHOUT_WEIGHTS} & set(overrides):
        usual |= {"model": "own_unet"} | OWN_COUNTS
    own = {key: value for key, value in usual.items() if key not in chosen and key.split(".")[0] in groups}
    return [*(f"{key}={value}" for key, value in own.items()), *overrides]


def check_tuned(overrides: Sequence[str]) -> None:
    """Raise InputError for `tuned=…` that is none: Hydra takes an option that is optional for one that may be misspelt."""
    known = sorted(path.relative_to(TUNED).with_suffix("").as_posix() for path in TUNED.rglob("*.yaml"))
    for override in overrides:
        key, _, name = override.partition("=")
        require(key != "tuned" or name in (*known, "null"), "tuned", name, f"one of {', '.join(known)}")


def compose_script(name: str, schema: type, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a script: `conf/<name>.yaml`, whose defaults start from `<name>_schema`."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    return compose_config(overrides, name)


def to_typed(cfg: DictConfig) -> Config:
    """The composed configuration as objects, which `Config.check` checks."""
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config


def from_stored(values: dict[str, Any]) -> Config:
    """The settings of a config.yaml, perhaps of an earlier version: a key that it lacks has its default."""
    register()
    cfg: Any = OmegaConf.structured(Config)
    for key, value in values.items():
        if key in COMPONENTS and value is not None:
            value = OmegaConf.merge(OmegaConf.structured(component_of(key, value)), value)
        cfg[key] = value
    return to_typed(cfg)
