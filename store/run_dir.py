"""The layout of a run directory: what may be shared, what must not, and when a run is finished.

    release/     may be shared          samples.npz, privacy.json, grid.png, model/; or classifier.safetensors
    internal/    must not be shared     metrics.json, figures/, checkpoints/, ledger.jsonl, noise.key, error.txt
    config.yaml  resolved               metrics.jsonl  the curves

`release/` appears whole or not at all; `internal/metrics.json` is written last and marks a finished run.

In the store of sweeps a run's name is two hashes (`store.identity.digest`): of its release and of its evaluation. Its release is
made in a folder of its own, named by the first hash alone, which all runs that differ in evaluation share; `release` in the
run's folder links there. One process at a time works in a folder: the lock is held for as long as it lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from disk import private_folder, sync_folder, sync_tree, write_json, write_whole
from errors import unusable

_STARTED = time.time() - 1  # clocks of file systems are coarse
_RUN, _RELEASE = re.compile("[0-9a-f]{16}-[0-9a-f]{8}"), re.compile("[0-9a-f]{16}")

StartedWith = Mapping[str, tuple[Any, str]]  # by name: a value, and what to say of another one, with {} for it


class RunDir:
    def __init__(self, path: Path, key: str = "hydra.run.dir"):
        self.path, self.key = path, key  # the key that users name it by
        self.config = path / "config.yaml"
        self.internal = path / "internal"
        self.figures = self.internal / "figures"
        self.metrics = self.internal / "metrics.json"
        self.made_with = self.internal / "made_with.json"
        self.error = self.internal / "error.txt"
        self.curves = path / "metrics.jsonl"
        real = path.resolve() if path.is_symlink() else path  # a sweep's link leads into the store
        self.in_store = bool(_RUN.fullmatch(real.name))  # whether its name is that of a run in the store of sweeps
        made = real.with_name(real.name.split("-")[0]) if self.in_store else path
        self.making = self if made == path else RunDir(made, key)  # where its release is made
        self.release = made / "release"
        self.withheld = made / "internal" / "not_for_release"  # samples of a run that is not private
        self.checkpoints = made / "internal" / "checkpoints"
        self.ledger = made / "internal" / "ledger.jsonl"
        self.noise_key = made / "internal" / "noise.key"
        self.computed_with = made / "internal" / "computed_with.json"
        self.cost = made / "internal" / "cost.json"
        self._lock_file = self.internal / "lock"
        self._held: IO[str] | None = None

    @property
    def only_makes(self) -> bool:
        """Whether it is a folder of the store that runs share to make their release, and no run of its own."""
        return bool(_RELEASE.fullmatch(self.path.name))

    @property
    def finished(self) -> bool:
        return self.metrics.exists()

    def require_usable(self, difference: Callable[[str], str | None]) -> None:
        """`difference(stored yaml)` names the first setting of another run, or None. Writes nothing.

        Raises InputError for a finished run, another run's directory, or a folder of something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise unusable(self.key, self.path, "it is a file; give a directory")
        if self.finished:
            raise unusable(self.key, self.path, "it holds a finished run; give another directory")
        if self.config.exists():
            if other := difference(self.config.read_text()):
                raise unusable(self.key, self.path, f"it holds an unfinished run with other settings ({other})")
        elif self.path.exists() and ((self.internal / self.ledger.name).exists() or self._foreign):
            raise unusable(self.key, self.path, "it is not empty and holds no run; give another directory")

    def open(self, config_yaml: str) -> None:
        """Start here, or go on with the same run: call it with the lock held and after `require_usable`."""
        for place in (self, self.making):
            private_folder(place.internal)
        self.figures.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        if not self.config.exists():
            write_whole(self.config, config_yaml)

    def start_with(self, values: StartedWith) -> None:
        """Keep what the release is made with (processor, versions, digests); InputError where that was something else before."""
        before = json.loads(self.computed_with.read_text()) if self.computed_with.exists() else {}
        for name, (value, other) in values.items():
            if before.get(name, value) != value:
                raise unusable(self.key, self.path, f"it holds an unfinished run on {other.format(before.get(name))}")
        write_json(self.computed_with, {name: value for name, (value, _) in values.items()} | before)

    def lock(self, waits: Callable[[], None] | None = None) -> None:
        """One process at a time, for as long as it lives: two of them would draw noise for one ledger entry each.

        Where another one is there: `waits()` is called and this one waits; without `waits`, InputError.
        """
        private_folder(self.internal)
        if self._held:
            return
        file = self._lock_file.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if waits is None:
                raise unusable(self.key, self.path, "another process is running there") from None
            waits()
            fcntl.flock(file, fcntl.LOCK_EX)
        self._held = file

    def close(self) -> None:
        """Let another process in."""
        for folder in (self, self.making):
            if folder._held:
                folder._held.close()
                folder._held = None

    @property
    def _foreign(self) -> list[Path]:
        """What no run has written."""
        ours = {"internal", "config.yaml", "config.yaml.partial", "metrics.jsonl", "release"}
        return [path for path in self.path.glob("*") if path.name not in ours]

    def of_rank(self, rank: int) -> RunDir:
        """Where process `rank` of the same run writes: rank 0 here, another beside copies of what it goes on from."""
        if rank == 0:
            return self
        own = RunDir(self.making.internal / "ranks" / str(rank))
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
        partial = self.making.internal / "release.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        # safetensors keeps its files to their owner, and a release is to be read by others
        usual = partial.stat().st_mode & 0o666
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(usual)
        sync_tree(partial)
        os.replace(partial, target)
        sync_folder(target.parent)
        return target

    def link_release(self) -> None:
        """In the store, let the run's folder lead to what it shares, for whoever looks there."""
        for shared in (self.release, self.withheld):
            link = self.path / shared.relative_to(self.making.path)
            if shared.exists() and not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.relpath(shared, link.parent))

    @property
    def output(self) -> Path | None:
        """Where the samples or the classifier are, once they are there."""
        return next((folder for folder in (self.release, self.withheld) if folder.exists()), None)

    @property
    def certificate(self) -> dict[str, Any] | None:
        """Of the output."""
        return json.loads((self.output / "privacy.json").read_text()) if self.output is not None else None


def run_of(release: Path) -> RunDir:
    """The run whose release/ or samples.npz this is; for other files and folders, what is beside them is treated alike."""
    folder = release if release.is_dir() else release.parent
    return RunDir(folder.parent if folder.name == "release" or release.is_dir() else folder)
