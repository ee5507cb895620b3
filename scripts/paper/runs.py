"""The runs behind a table or figure: what is missing is run, what is there is read."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

import run as command
from conf.compose import compose_config
from conf.help import one_line
from pipeline.config import refuse_added_keys
from store.run_dir import RunDir
from store.sweep import Sweep
from tracking.environment import format_environment
from tracking.progress import console
from tracking.results import accuracy, distance, distance_name

FAMILIES = {  # one run gives several points: x is in the metric's name
    "size": r"/{metric}_at=(\d+)$",
    "class": r"^{metric}/class=(.+)$",
    "degree": r"^{metric}/degree_(.+)$",
    "part": r"^{metric}/part=(.+)$",
}
NAMED = {"class", "part"}  # whose x is no number


@dataclass(eq=False)
class Measured:
    """One finished run."""

    folder: RunDir

    @cached_property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.folder.config.read_text())

    def setting(self, key: str) -> Any:
        """Of the configuration; `a.0.b` looks into a list."""
        found: Any = self.config
        for part in key.split("."):
            found = found[int(part)] if isinstance(found, list) else (found or {}).get(part)
        return found

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return json.loads(self.folder.metrics.read_text())

    @cached_property
    def certificate(self) -> dict[str, Any]:
        found = self.folder.certificate
        assert found is not None
        return found

    def seconds(self, part: str) -> float:
        """Of the method or the evaluation."""
        return self.metrics.get(f"time/{part}_seconds", 0)

    @cached_property
    def on_gpu(self) -> bool:
        return "CPU" not in json.loads(self.folder.computed_with.read_text()).get("device", "CPU")

    @cached_property
    def environment(self) -> list[str]:
        """Program and machine of its release and of its evaluation."""
        file = self.folder.made_with
        return [format_environment(made) for made in json.loads(file.read_text()).values()] if file.exists() else []

    def matches(self, where: dict[str, Any]) -> bool:
        return all(self.setting(key) == value for key, value in where.items())

    def value(self, name: str) -> Any:
        """`accuracy`, `balanced_accuracy` or `ensemble_accuracy` (of the run's classifier, in %), its `auc`, `distance` (Fréchet
        distance, FID with Inception's features), the name of a metric, of an entry of the certificate, or a key of the
        configuration; None where there is none."""
        if name in ("accuracy", "balanced_accuracy", "ensemble_accuracy"):
            found = accuracy(self.metrics, name)
            return None if found is None else 100 * found
        if name == "auc":
            return accuracy(self.metrics, name)
        if name == "distance":
            return distance(self.metrics)
        found = self.metrics.get(name, self.certificate.get(name, self.setting(name)))
        return float("inf") if found == "inf" else found

    def points(self, x: str, metric: str) -> Iterator[tuple[Any, float]]:
        """(x, y) pairs: mostly one."""
        if x not in FAMILIES:
            if (y := self.value(metric)) is not None:
                yield self.value(x), y
            return
        stem = distance_name(self.metrics) or metric if metric == "distance" else metric
        pattern = re.compile(FAMILIES[x].format(metric=re.escape(stem)))
        scale = 100 if metric.endswith("accuracy") else 1
        for key, value in self.metrics.items():
            if found := pattern.search(key):
                yield (found[1] if x in NAMED else float(found[1])), scale * value
        if x == "size" and (whole := self.value(metric)) is not None:
            yield float(self.certificate["num_samples"]), whole


def jobs(experiment: str, scale: str, overrides: Sequence[str] = ()) -> list[list[str]]:
    """The overrides of every run of an experiment's sweep."""
    base = _at_scale(experiment, scale)
    params = compose_config(base, with_hydra=True).hydra.sweeper.params or {}
    parsed = OverridesParser.create().parse_overrides([*(f"{key}={value}" for key, value in params.items()), *overrides])
    choices = {one.get_key_element().lstrip("+"): _values(one) for one in parsed}  # the last one counts
    return [[*base, *job] for job in itertools.product(*choices.values())]


def refusal(experiment: str, scale: str, overrides: Sequence[str]) -> Exception | None:
    """Why no run of an experiment can have these overrides; None where one can."""
    last = None
    without_seed = (tuple(word for word in job if not word.startswith("seed=")) for job in jobs(experiment, scale, overrides))
    for job in dict.fromkeys(without_seed):
        try:
            refuse_added_keys(OmegaConf.to_object(compose_config(job)))
        except Exception as error:
            if one_line(error) is None:
                raise
            last = error
        else:
            return None
    return last


def _at_scale(experiment: str, scale: str) -> list[str]:
    return [f"+experiment={experiment}", *([] if scale == "paper" else [f"+scale={scale}"])]


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_string()}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def finished(experiment: str, scale: str, overrides: Sequence[str]) -> tuple[list[Measured], int]:
    """The runs of an experiment's sweep that are finished: none is started. Status 1 where one cannot be."""
    places, status = [], 0
    for job in jobs(experiment, scale, overrides):
        try:
            places.append(Path(compose_config(job, with_hydra=True).hydra.sweep.subdir))
        except Exception as error:
            if (line := one_line(error)) is None:
                raise
            console.print(f"{' '.join(job)}: {line}", soft_wrap=True, highlight=False)
            status = 1
    return _measured(places), status


def run_missing(experiment: str, scale: str, overrides: Sequence[str]) -> tuple[list[Measured], int]:
    """The finished runs of an experiment's sweep, after those that were missing; and the exit status of the sweep."""
    folder = Path("runs/papers") / scale / experiment / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"  # another may run at once
    arguments = [*_at_scale(experiment, scale), f"hydra.sweep.dir={folder}", *overrides]
    argv = sys.argv
    GlobalHydra.instance().clear()
    try:
        sys.argv = ["run.py", "-m", *arguments]
        status = command.cli()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = argv
    return _measured(run.path.resolve() for run in Sweep(folder).runs), status


def _measured(places: Iterable[Path]) -> list[Measured]:
    """Those that are finished, each once."""
    runs = map(RunDir, dict.fromkeys(places))
    return [Measured(run) for run in runs if run.finished]
