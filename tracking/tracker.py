"""Where numbers go: JSON lines always, and another tracker when asked.

A number that touched real data without noise is `internal`: marked so in the JSON lines, which stay on this machine. What such a
number is sent to elsewhere is said in `tracking.services`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from errors import reject_unless, require


class Tracker(Protocol):
    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def summary(self, facts: dict[str, Any]) -> None:
        """What runs are compared by, beside their numbers; it may leave this machine."""

    def finish(self, failed: bool = False) -> None: ...


class JsonLines:
    """One JSON object a line: `step`, `seconds` since the start, `internal`, and the metrics.

    `path` takes what is measured on a release, `making` (by default the same file) the numbers by step, of how it was made.
    """

    def __init__(self, path: Path, making: Path | None = None):
        self._path, self._making, self._started = path, making or path, time.time()

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # strict JSON has no NaN
        line = {**numbers, "step": step, "seconds": round(time.time() - self._started, 3), "internal": internal}
        with (self._path if step is None else self._making).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def image(self, name: str, path: Path) -> None:
        pass

    def summary(self, facts: dict[str, Any]) -> None:
        pass  # in config.yaml and the certificate

    def finish(self, failed: bool = False) -> None:
        pass


class Several:
    def __init__(self, *trackers: Tracker):
        self._trackers = trackers

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        for tracker in self._trackers:
            tracker.log(metrics, step=step, internal=internal)

    def image(self, name: str, path: Path) -> None:
        for tracker in self._trackers:
            tracker.image(name, path)

    def summary(self, facts: dict[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.summary(facts)

    def finish(self, failed: bool = False) -> None:
        for tracker in self._trackers:
            tracker.finish(failed)


@contextmanager
def finishing(tracker: Tracker) -> Iterator[Tracker]:
    """It ends with what it follows, however that ends: the next run of a sweep, in the same process, has its own."""
    try:
        yield tracker
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.finish()


class TrackerName(Enum):
    jsonl = "jsonl"
    wandb = "wandb"
    tensorboard = "tensorboard"
    mlflow = "mlflow"


@dataclass(kw_only=True)
class TrackerConfig:
    name: TrackerName = TrackerName.jsonl  # what gets the numbers beside metrics.jsonl
    project: str = "dp-image-synthesis"  # of W&B; the experiment of MLflow
    group: str | None = None  # of W&B, to compare runs by; a tag of MLflow
    mode: str = "online"  # of W&B: online, offline or disabled
    uri: str | None = None  # of MLflow: where it tracks; null: MLFLOW_TRACKING_URI, or runs/mlflow
    internal: bool = False  # whether numbers measured on real data go to W&B or MLflow too

    def check(self) -> None:
        modes = ("online", "offline", "disabled")
        require(self.mode in modes, "tracker.mode", self.mode, f"one of {', '.join(modes)}")
        secret = self.uri is not None and "@" in self.uri
        problem = "it holds a name or a password, for which MLflow has MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        reject_unless(not secret, "tracker.uri", "…", problem)
        there = self.name is TrackerName.jsonl or importlib.util.find_spec(self.name.value) is not None
        package = "mlflow-skinny or mlflow" if self.name is TrackerName.mlflow else self.name.value
        reject_unless(there, "tracker.name", self.name, f"it needs the package {package}, which is not installed")

    def build(self, folder: Path, config: dict[str, Any], making: Path | None = None) -> Tracker:
        """For a run in `folder`, whose release is made in `making`, if not there too."""
        lines = JsonLines(folder / "metrics.jsonl", (making or folder) / "metrics.jsonl")
        if self.name is TrackerName.jsonl:
            return lines
        from tracking import services

        made: dict[TrackerName, Any] = {
            TrackerName.wandb: services.WandB,
            TrackerName.tensorboard: services.TensorBoard,
            TrackerName.mlflow: services.MLflow,
        }
        return Several(lines, made[self.name](self, config, folder / "internal"))
