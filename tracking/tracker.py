"""Where numbers go: JSON lines always, Weights & Biases when asked.

A number that touched real data without noise is `internal`: marked so in the JSON lines, which stay on this machine, and
sent to W&B only where the user says `tracker.internal=true`. Of places on this machine W&B gets no more than last names: see
`without_places`.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

from errors import require

# What W&B would gather by itself: program, arguments, folders, host, user, git remote, and the places of local packages.
QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "host": "",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


# Settings that name files or folders.
PLACES = ("path", "cache", "pretrained", "features", "inception", "clip", "out", "base", "signing_key")


class Tracker(Protocol):
    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def summary(self, facts: dict[str, Any]) -> None:
        """What runs are compared by, beside their numbers; it may leave this machine."""

    def finish(self) -> None: ...


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

    def finish(self) -> None:
        pass


class WandB:
    """A Weights & Biases run; `mode=offline` needs no account."""

    def __init__(self, settings: TrackerConfig, config: dict[str, Any], folder: Path, resume_id: str):
        import wandb

        self._internal = settings.internal
        self._wandb = wandb
        self._run = wandb.init(
            project=settings.project,
            group=settings.group,
            mode=settings.mode,  # type: ignore[arg-type]
            dir=folder,
            id=resume_id,
            resume="allow",
            config=without_places(config),
            settings=wandb.Settings(**QUIET),
        )

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        if self._internal or not internal:
            self._run.log(metrics if step is None else {**metrics, "step": step})

    def image(self, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Image(str(path))})

    def summary(self, facts: dict[str, Any]) -> None:
        self._run.summary.update(facts)

    def finish(self) -> None:
        self._run.finish()


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

    def finish(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def without_places(value: Any, key: str = "") -> Any:
    """Settings as they may leave this machine: of a path no more than its last name.

    A string is a path where its key is one of `PLACES` or ends in `_path`, where it begins at a root or a home, or where it
    exists here.
    """
    if isinstance(value, dict):
        return {name: without_places(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    path = PureWindowsPath(value)  # which takes both kinds of slashes
    named = key in PLACES or key.endswith("_path")
    rooted = bool(path.root or path.drive) or value.startswith("~")
    return path.name if named or rooted or os.path.exists(value) else value


@dataclass(kw_only=True)
class TrackerConfig:
    name: str = "jsonl"  # jsonl alone, or wandb beside it
    project: str = "dp-image-synthesis"  # of W&B
    group: str | None = None  # of W&B, to compare runs by
    mode: str = "online"  # of W&B: online or offline
    internal: bool = False  # whether numbers measured on real data go to W&B too

    def check(self) -> None:
        require(self.name in ("jsonl", "wandb"), "tracker.name", self.name, "one of jsonl, wandb")
        modes = ("online", "offline", "disabled")
        require(self.mode in modes, "tracker.mode", self.mode, f"one of {', '.join(modes)}")

    def build(self, folder: Path, config: dict[str, Any], making: Path | None = None) -> Tracker:
        """For a run in `folder`, whose release is made in `making`, if not there too."""
        lines = JsonLines(folder / "metrics.jsonl", (making or folder) / "metrics.jsonl")
        if self.name != "wandb":
            return lines
        run_id = folder / "internal" / "wandb_id"
        if not run_id.exists():
            import secrets

            run_id.write_text(secrets.token_hex(8))
        return Several(lines, WandB(self, config, folder / "internal", run_id.read_text()))
