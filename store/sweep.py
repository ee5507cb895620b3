"""Sweeps: every run lies where its settings say, so what is finished is found again; a sweep's folder links to its runs.

runs/by_config/<hash>/                         a release, and all that it was made with (see `store.run_dir`)
runs/by_config/<hash>-<hash of evaluation>/    the runs: an evaluation each, with a link to the release
runs/sweeps/<time>/0, 1, …                     links to those of one sweep; internal/report.json, internal/failed.jsonl
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from disk import private_folder
from errors import unusable
from privacy.accounting import compose_epsilon
from privacy.inherited import BASE
from privacy.ledger import aggregate, read_entries
from privacy.mechanisms import Spend
from store.run_dir import RunDir


@dataclass
class Sweep:
    """The folder of one sweep."""

    folder: Path

    def start(self) -> None:
        """What an earlier sweep linked to from the same folder is not of this one; its runs stay where they are."""
        for path in self.folder.glob("*"):
            if path.is_symlink() and path.name.isdigit():
                path.unlink()
        for file in (self.failed_runs, self.report):
            file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Nothing of it began: nothing stays."""
        if self.began:
            return
        self.start()
        (self.folder / "multirun.yaml").unlink(missing_ok=True)  # Hydra's
        for folder in (self.internal, self.folder):
            RunDir(folder).remove_if_empty()

    def links(self, job: int, run: RunDir) -> None:
        """Called when a run begins, and when it ends: one that left no folder is none of the sweep's."""
        link = self.folder / str(job)
        if link.exists() and not link.is_symlink():
            problem = f"it holds a folder {link.name} that is no link of a sweep; give another one"
            raise unusable("hydra.sweep.dir", self.folder, problem)
        if link.absolute() != run.path.absolute():
            link.unlink(missing_ok=True)
            if run.path.exists():
                link.symlink_to(run.path.absolute())

    def fails(self, job: int, overrides: list[str], reason: str, status: int, error: Path | None = None) -> None:
        """Written down; the other jobs go on. `error`: the file that says what broke."""
        line: dict[str, Any] = {"job": job, "overrides": overrides, "reason": reason, "status": status}
        line |= {"error": str(error)} if error else {}
        private_folder(self.internal)
        with self.failed_runs.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def breaks(self, reason: str) -> None:
        """A launcher has lost a process: what has begun and not ended is written down as failed."""
        lost = [path for path in self.began if not RunDir(path).finished]
        for path in lost:
            self.fails(int(path.name), [str(path.resolve())], f"its process ended ({reason})", 1)

    @property
    def internal(self) -> Path:
        return self.folder / "internal"

    @property
    def failed_runs(self) -> Path:
        return self.internal / "failed.jsonl"

    @property
    def report(self) -> Path:
        return self.internal / "report.json"

    @property
    def failures(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.failed_runs.read_text().splitlines()] if self.failed_runs.exists() else []

    @property
    def began(self) -> list[Path]:
        """Links, in the order of the jobs."""
        links = [path for path in self.folder.glob("*") if path.is_symlink() and path.name.isdigit()]
        return sorted(links, key=lambda path: int(path.name))

    @property
    def runs(self) -> list[RunDir]:
        return [run for run in map(RunDir, self.began) if run.config.exists()]

    def composed(self) -> list[dict[str, Any]]:
        """For each private dataset: `runs`, `spent` (epsilon of each run) and `epsilon` of all together at the least `delta`.

        A run that has not come to its release counts with what its ledger holds; one whose noise is known makes it infinite.
        Runs that share a release, and so its secret key, count once; so does a released model that several of them start from.
        """
        known: dict[str, dict[Any, tuple[list[Spend], dict[str, Any] | None]]] = defaultdict(dict)
        for run in self.runs:
            if spends := _spends(run):
                data = yaml.safe_load(run.config.read_text())["dataset"]
                place = str(Path(data["path"]).resolve()) if data.get("path") else ""
                of_data = known[f"{data['name']} {place}".strip()]
                of_data[run.making.path.resolve()] = spends, run.certificate
        found = []
        for name, of_data in known.items():
            runs = list(of_data.values())
            certificates = [certificate for _, certificate in runs if certificate]
            if not certificates:
                continue  # nothing is released yet
            delta = min(certificate["delta"] for certificate in certificates)
            epsilon = compose_epsilon(distinct_spends(runs), delta)
            secret = all(certificate["private"] for certificate in certificates)
            spent = [certificate["epsilon"] if certificate["private"] else "inf" for certificate in certificates]
            whole = epsilon if secret and epsilon < float("inf") else "inf"
            found.append({"dataset": name, "runs": len(runs), "spent": spent, "epsilon": whole, "delta": delta})
        return found


def _spends(run: RunDir) -> list[Spend]:
    """What it spent on its release, or so far."""
    if certificate := run.certificate:
        return [Spend.from_dict(spend) for spend in certificate["mechanisms"]]
    return aggregate(read_entries(run.ledger))


def distinct_spends(runs: Sequence[tuple[list[Spend], dict[str, Any] | None]]) -> list[Spend]:
    """Spends of runs, each with its certificate, if it has one. What runs inherited from one release was spent once, and not
    again by the run that released it, if that is among them."""
    found: dict[Any, Spend] = {}
    for number, (spends, document) in enumerate(runs):
        own = document.get("id") if document else None
        for spend in spends:
            inherited = spend.purpose.startswith(BASE)
            found[spend.purpose if inherited else (f"{BASE}{own}.{spend.purpose}" if own else (number, spend.purpose))] = spend
    return list(found.values())
