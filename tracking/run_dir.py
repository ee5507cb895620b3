"""The layout of a run directory: what may be shared, what must not, and when a run is finished.

    release/     may be shared          samples.npz, privacy.json, grid.png, model/
    internal/    must not be shared     metrics.json, figures/, checkpoints/, ledger.jsonl, noise.key
    config.yaml  resolved               metrics.jsonl  the curves

`release/` appears whole or not at all; `internal/metrics.json` is written last and marks a finished run.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from errors import InputError

_STARTED = time.time() - 1  # clocks of file systems are coarse


class RunDir:
    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.release = path / "release"
        self.internal = path / "internal"
        self.withheld = self.internal / "not_for_release"  # samples of a run that is not private
        self.checkpoints = self.internal / "checkpoints"
        self.figures = self.internal / "figures"
        self.ledger = self.internal / "ledger.jsonl"
        self.noise_key = self.internal / "noise.key"
        self.metrics = self.internal / "metrics.json"

    @property
    def finished(self) -> bool:
        return self.metrics.exists()

    def open(self, config_yaml: str, same_run: Callable[[str], str | None]) -> None:
        """Start here, or go on with the same run. `same_run(stored yaml)` names what differs, or None.

        Raises InputError for a finished run, another run's directory, or a folder of something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"hydra.run.dir={self.path}: is a file; give a directory")
        if self.finished:
            raise InputError(f"hydra.run.dir={self.path}: holds a finished run; give another directory")
        if self.config.exists():
            if difference := same_run(self.config.read_text()):
                raise InputError(f"hydra.run.dir={self.path}: holds an unfinished run with other settings ({difference})")
        elif self.path.exists() and any(self.path.iterdir()):
            raise InputError(f"hydra.run.dir={self.path}: is not empty and holds no run; give another directory")
        for folder in (self.internal, self.checkpoints, self.figures):
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.config, config_yaml)

    def remove_if_empty(self) -> None:
        """Hydra makes the directory before anything is checked; a refused run or a plan leaves none behind."""
        folder, ours = self.path, Path.cwd() / "runs"
        if not folder.is_dir() or any(folder.iterdir()) or folder.stat().st_mtime < _STARTED:
            return
        folder.rmdir()
        for parent in folder.absolute().parents:  # the default place; anybody else's empty folders stay
            if (parent == ours or ours in parent.parents) and not any(parent.iterdir()):
                parent.rmdir()

    def publish(self, write: Callable[[Path], None], *, private: bool) -> Path:
        """Let `write(folder)` fill the release (or, where not private, a folder under internal/), then show it whole."""
        target = self.release if private else self.withheld
        partial = self.internal / "release.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        os.replace(partial, target)
        return target

    @property
    def published(self) -> Path | None:
        """Where the samples are, once they are there."""
        return next((folder for folder in (self.release, self.withheld) if folder.exists()), None)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, synced, whole or not at all."""
    fresh = path.with_name(path.name + ".partial")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def write_json(path: Path, values: Any) -> None:
    write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
