"""Where numbers go: JSON lines always, Weights & Biases when asked.

A number that touched real data without noise is `internal`: marked so in the JSON lines, which stay on this machine, and
sent to W&B only where the user says `tracker.internal=true`.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from errors import require


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
            config=config,
            settings=wandb.Settings(silent=True, console="off"),
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


@dataclass(kw_only=True)
class TrackerConfig:
    name: str = "jsonl"
    project: str = "dp-image-synthesis"
    group: str | None = None
    mode: str = "online"
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
