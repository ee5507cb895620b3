"""The layout of a run directory: what may be shared, what must not, and when a run is finished.

    release/     may be shared          samples.npz, privacy.json, grid.png, model/
    internal/    must not be shared     metrics.json, figures/, checkpoints/, ledger.jsonl, noise.key
    config.yaml  resolved               metrics.jsonl  the curves

`release/` appears whole or not at all; `internal/metrics.json` is written last and marks a finished run.

In the store of sweeps a directory's name is two hashes (`conf.sweep.digest`). Those that begin alike are siblings: runs that
differ in their evaluation alone. They are made one after the other, and what one has spent for the others go on from.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from disk import sync_folder, sync_tree, write_json, write_whole
from errors import InputError

_STARTED = time.time() - 1  # clocks of file systems are coarse
_STORED = re.compile("[0-9a-f]{16}-[0-9a-f]{8}")


class RunDir:
    def __init__(self, path: Path, key: str = "hydra.run.dir"):
        self.path, self.key = path, key  # the key that users name it by
        self.config = path / "config.yaml"
        self.release = path / "release"
        self.internal = path / "internal"
        self.withheld = self.internal / "not_for_release"  # samples of a run that is not private
        self.checkpoints = self.internal / "checkpoints"
        self.figures = self.internal / "figures"
        self.ledger = self.internal / "ledger.jsonl"
        self.noise_key = self.internal / "noise.key"
        self.computed_with = self.internal / "computed_with.json"
        self.cost = self.internal / "cost.json"
        self.made_with = self.internal / "made_with.json"
        self.metrics = self.internal / "metrics.json"
        self.curves = path / "metrics.jsonl"
        self._lock_file = self.internal / "lock"
        self._held: IO[str] | None = None
        self._turn: IO[str] | None = None

    @property
    def finished(self) -> bool:
        return self.metrics.exists()

    def open(self, config_yaml: str, same_run: Callable[[str], str | None], started_with: dict[str, tuple[Any, str]]) -> None:
        """Start here, or go on with the same run. `same_run(stored yaml)` names what differs, or None. `started_with` is
        stored as `internal/computed_with.json` and has to be the same: for each name its value, and what to say of another.

        Raises InputError for a finished run, another run's directory, or a folder of something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.key}={self.path}: is a file; give a directory")
        if self.finished:
            raise InputError(f"{self.key}={self.path}: holds a finished run; give another directory")
        if self.config.exists():
            if difference := same_run(self.config.read_text()):
                raise InputError(f"{self.key}={self.path}: holds an unfinished run with other settings ({difference})")
        elif self.path.exists() and (self.ledger.exists() or self._foreign):
            raise InputError(f"{self.key}={self.path}: is not empty and holds no run; give another directory")
        self.internal.mkdir(parents=True, exist_ok=True)
        self._lock()
        before = self.require_started_with(started_with)
        write_json(self.computed_with, {name: value for name, (value, _) in started_with.items()} | before)
        write_whole(self.config, config_yaml)
        for folder in (self.checkpoints, self.figures):
            folder.mkdir(exist_ok=True)

    def require_started_with(self, values: dict[str, tuple[Any, str]]) -> dict[str, Any]:
        """What this run started with: the same `values` (see `open`), where it has started; InputError where it is not."""
        before = json.loads(self.computed_with.read_text()) if self.computed_with.exists() else {}
        for name, (value, other) in values.items():
            if before.get(name, value) != value:
                raise InputError(f"{self.key}={self.path}: holds an unfinished run on {other.format(before.get(name))}")
        return before

    def _lock(self) -> None:
        """One process at a time, for as long as it lives: two of them would draw noise for one ledger entry each."""
        self.close()

        def refuse() -> None:
            raise InputError(f"{self.key}={self.path}: another process is running there")

        self._held = _locked(self._lock_file, refuse)

    def close(self) -> None:
        """Let another process in."""
        if self._held:
            self._held.close()
        self.pass_turn()

    @property
    def in_store(self) -> bool:
        """Whether its name is that of a run in the store of sweeps."""
        return bool(_STORED.fullmatch(self.path.name))

    @property
    def siblings(self) -> list[RunDir]:
        stem = self.path.name.rpartition("-")[0]
        beside = [RunDir(path) for path in sorted(self.path.parent.glob(f"{stem}-*")) if path.name != self.path.name]
        return [run for run in beside if run.in_store] if self.in_store else []

    @property
    def shares(self) -> bytes | Path:
        """Equal for runs that share a release, and so its secret key."""
        return self.noise_key.read_bytes() if self.noise_key.exists() else self.path.resolve()

    def take_turn(self, waits: Callable[[], None]) -> None:
        """In the store, wait until no other process makes this run or a sibling, and have others wait from now on; of a run that
        is released, until nobody judges it. `waits` is called before a wait."""
        self.pass_turn()
        if not self.in_store:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._turn = _locked(self.path.parent / f".{self.path.name.rpartition('-')[0]}.lock", waits)
        if self.published:
            self.pass_turn()
            _locked(self._lock_file, waits).close()

    def pass_turn(self) -> None:
        if self._turn:
            self._turn.close()

    @property
    def unspent(self) -> bool:
        """Whether nothing was spent for what is here, and all of it is a run's: a start that was killed may have left much."""
        return not self.ledger.exists() and self.published is None and not self._foreign

    @property
    def _foreign(self) -> list[Path]:
        """What no run has written."""
        ours = (self.internal, self.config, self.config.with_name(f"{self.config.name}.partial"), self.curves, self.release)
        return [path for path in self.path.glob("*") if path not in ours]

    def adopt(self, other: RunDir) -> None:
        """Start with what a sibling spent, drew and released, and not with its evaluation. This folder is `unspent`.

        An unfinished release goes on here, and no longer there: a second copy of its key would noise a second release.
        """
        if other.published is None:
            other._lock()
            self._clear()
            os.replace(other.path, self.path)
            other.close()
        else:
            aside = self.path.with_name(f".{self.path.name}.partial")
            shutil.rmtree(aside, ignore_errors=True)
            other._copy_release(RunDir(aside))
            sync_tree(aside)
            self._clear()
            os.replace(aside, self.path)
        sync_folder(self.path.parent)

    def _clear(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)

    def _copy_release(self, target: RunDir) -> None:
        """And all that it came with. What nobody changes is linked."""
        target.internal.mkdir(parents=True)
        for folder in (self.release, self.withheld, self.checkpoints):
            if folder.exists():
                there, partial = target.path / folder.relative_to(self.path), shutil.ignore_patterns("*.partial")
                shutil.copytree(folder, there, copy_function=_link, ignore=partial)
        for file in (self.config, self.ledger, self.noise_key, self.computed_with, self.made_with, self.cost):
            if file.exists():
                shutil.copy2(file, target.path / file.relative_to(self.path))
        if self.curves.exists():
            lines = self.curves.read_text().splitlines(keepends=True)
            target.curves.write_text("".join(line for line in lines if _is_step(line)))

    def of_rank(self, rank: int) -> RunDir:
        """Where process `rank` of the same run writes: rank 0 here, another beside copies of what it goes on from."""
        if rank == 0:
            return self
        own = RunDir(self.internal / "ranks" / str(rank))
        shutil.rmtree(own.path, ignore_errors=True)
        shutil.copytree(self.checkpoints, own.checkpoints)
        own.figures.mkdir()
        if self.ledger.exists():
            shutil.copy(self.ledger, own.ledger)
        return own

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
        sync_tree(partial)
        os.replace(partial, target)
        sync_folder(target.parent)
        return target

    @property
    def published(self) -> Path | None:
        """Where the samples are, once they are there."""
        return next((folder for folder in (self.release, self.withheld) if folder.exists()), None)

    @property
    def certificate(self) -> dict[str, Any] | None:
        """Of what is published."""
        return json.loads((self.published / "privacy.json").read_text()) if self.published is not None else None


def run_of(release: Path) -> RunDir:
    """The run whose release/ or samples.npz this is; for other files and folders, what is beside them is treated alike."""
    folder = release if release.is_dir() else release.parent
    return RunDir(folder.parent if folder.name == "release" or release.is_dir() else folder)


def _locked(path: Path, waits: Callable[[], None]) -> IO[str]:
    """The file, open: nobody else has it so until it is closed. `waits` is called where somebody has it now, and may raise."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except OSError:
        pass
    waits()
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_step(line: str) -> bool:
    """Whether a line of the curves was written while the release was made; a torn one is none."""
    try:
        return json.loads(line).get("step") is not None
    except json.JSONDecodeError:
        return False


def _link(source: str, target: str) -> None:
    """A second name for a file that nobody changes, or a copy where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
