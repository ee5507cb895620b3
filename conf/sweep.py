"""Sweeps: every run lies where its settings say, so what is finished is found again; a sweep's folder links to its runs.

runs/by_config/<hash>-<hash of evaluation>/   the runs; those that differ in evaluation alone share what was spent and released
runs/sweeps/<time>/0, 1, …                    links to those of one sweep; internal/report.json, internal/failed.jsonl
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from disk import write_json
from errors import InputError, require
from method.opening import flat, is_free
from privacy.accounting import compose_epsilon
from privacy.inherited import BASE
from privacy.ledger import read_entries, together
from privacy.mechanisms import Spend
from tracking.results import accuracy, distance, shown_epsilon
from tracking.run_dir import RunDir

ASIDE = ("device", "tracker", "plan_only", "hydra")  # keys that no result depends on


def digest(cfg: DictConfig) -> str:
    """Of everything that a run's results depend on: 16 hexadecimal digits for its release, 8 for its evaluation."""
    kept: Any = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ASIDE])
    settings = flat(OmegaConf.to_container(kept, resolve=True))  # type: ignore[arg-type]
    judging = {key: value for key, value in settings.items() if is_free(key, settings)}
    making = {key: value for key, value in settings.items() if key not in judging}
    return f"{_hash(making)[:16]}-{_hash(judging)[:8]}"


def _hash(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def register_resolvers() -> None:
    """What configuration files may use besides values.

    `${run_store:FOLDER}`: where the run with these settings lies. `${at:PAPER,SMOKE}` or `${at:PAPER,SMOKE,HOUR}`: by scale.
    `${times:A,B}`: their product, a whole number.
    `${by:KEY,{VALUE:A,VALUE:B}}`: by another setting, of which a sweep gives several values.
    `${falling:HIGH,STEP,SMOKE_HIGH,SMOKE_STEP}`: HIGH, HIGH - STEP, … down to 1: a variation degree for each of
    `method.iterations` rounds.
    """

    def run_store(folder: str, *, _root_: DictConfig) -> str:
        return str((Path.cwd() / folder / digest(_root_)).absolute())

    def at(paper: Any, smoke: Any, hour: Any = None, *, _root_: DictConfig) -> Any:
        return {"paper": paper, "smoke": smoke, "hour": paper if hour is None else hour}[_root_.scale]

    def by(key: str, values: dict[Any, Any], *, _root_: DictConfig) -> Any:
        value = OmegaConf.select(_root_, key)
        require(value in values, key, value, f"one of {', '.join(map(str, values))}, which the experiment has settings for")
        return values[value]

    def falling(high: float, step: float, smoke_high: float, smoke_step: float, *, _root_: DictConfig) -> list[float]:
        high, step = (smoke_high, smoke_step) if _root_.scale == "smoke" else (high, step)
        return [max(1, high - step * i) for i in range(_root_.method.iterations)]

    OmegaConf.register_new_resolver("run_store", run_store, replace=True)
    OmegaConf.register_new_resolver("times", lambda a, b: round(a * b), replace=True)
    OmegaConf.register_new_resolver("at", at, replace=True)
    OmegaConf.register_new_resolver("by", by, replace=True)
    OmegaConf.register_new_resolver("falling", falling, replace=True)


@dataclass
class Sweep:
    """The folder of one sweep."""

    folder: Path

    @classmethod
    def running(cls) -> Sweep | None:
        """The sweep that this job belongs to, if it does."""
        config = HydraConfig.get()
        return cls(Path(config.sweep.dir)) if config.mode is RunMode.MULTIRUN else None

    @property
    def name(self) -> str:
        return str(HydraConfig.get().runtime.choices.get("experiment") or self.folder.name)

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

    def links(self, run: RunDir) -> None:
        """Called when a run begins, and when it ends: one that left no folder is none of the sweep's."""
        link = self.folder / str(HydraConfig.get().job.num)
        if link.exists() and not link.is_symlink():
            raise InputError(
                f"hydra.sweep.dir={self.folder}: holds a folder {link.name} that is no link of a sweep; give another one"
            )
        if link.absolute() != run.path.absolute():
            link.unlink(missing_ok=True)
            if run.path.exists():
                link.symlink_to(run.path.absolute())

    def fails(self, reason: str, status: int) -> None:
        """Written down; the other jobs go on."""
        job = HydraConfig.get()
        self._fails(job.job.num, list(job.overrides.task), reason, status)

    def _fails(self, job: int, overrides: list[str], reason: str, status: int) -> None:
        line = {"job": job, "overrides": overrides, "reason": reason, "status": status}
        self.internal.mkdir(exist_ok=True)
        with self.failed_runs.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def breaks(self, reason: str) -> None:
        """A launcher has lost a process: what has begun and not ended is written down as failed."""
        lost = [path for path in self.began if not RunDir(path).finished]
        for path in lost:
            self._fails(int(path.name), [str(path.resolve())], f"its process ended ({reason})", 1)

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
        """Links, in the order of the jobs. One may lead nowhere: to a run that broke, and that a sibling has gone on from."""
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
        gone = [run for path in self.began if not path.exists() for run in RunDir(path.resolve()).siblings]
        for run in {run.path.resolve(): run for run in [*self.runs, *gone]}.values():
            if run.config.exists() and (spends := _spends(run)):
                data = yaml.safe_load(run.config.read_text())["dataset"]
                place = str(Path(data["path"]).resolve()) if data.get("path") else ""
                of_data = known[f"{data['name']} {place}".strip()]
                before, certificate = of_data.get(run.shares, ([], None))
                of_data[run.shares] = max(before, spends, key=_uses), certificate or run.certificate
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
    return together(read_entries(run.ledger))


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


def _uses(spends: Sequence[Spend]) -> int:
    return sum(spend.count for spend in spends)


class Report(Callback):
    """At the end of a sweep: its runs beside what they spent, all together and each; what failed."""

    status = 0  # of the last sweep of this process
    sweep: Sweep | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        Report.sweep = Sweep(Path(config.hydra.sweep.dir))
        Report.sweep.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        Report.end(Sweep(Path(config.hydra.sweep.dir)))

    @staticmethod
    def end(sweep: Sweep) -> None:
        status = max((failure["status"] for failure in sweep.failures), default=0)
        Report.status = 1  # if the report breaks, of which Hydra tells only a warning
        if sweep.began:
            report(sweep)
            Report.status = min(status, 1)
        else:  # nothing was begun
            sweep.discard()
            Report.status = status


def report(sweep: Sweep) -> None:
    runs, composed = sweep.runs, sweep.composed()
    sweep.internal.mkdir(exist_ok=True)
    write_json(sweep.report, {"composed": composed, "failed": sweep.failures})
    table = Table(title=f"{sweep.folder}: {len(runs)} runs")
    configs = [flat(yaml.safe_load(run.config.read_text())) for run in runs]
    differing = _differing(configs)
    for column in ("", *differing, "ε spent", "accuracy, %", "distance"):
        table.add_column(column, justify="right")
    for run, config in zip(runs, configs, strict=True):
        metrics = json.loads(run.metrics.read_text()) if run.finished else {}
        right, far = accuracy(metrics), distance(metrics)
        numbers = ("–" if right is None else f"{100 * right:.1f}", "–" if far is None else f"{far:.1f}")
        spent = shown_epsilon(metrics["privacy/epsilon"]) if metrics else "–"
        table.add_row(run.path.name, *(str(config.get(key)) for key in differing), spent, *numbers)
    console = Console()
    console.print(table)
    for part in composed:
        each = ", ".join(dict.fromkeys(shown_epsilon(value) for value in part["spent"]))
        said = (
            f"{part['dataset']}: each of {part['runs']} runs spent ε = {each}; all together ε = {shown_epsilon(part['epsilon'])}"
        )
        console.print(f"{said} at δ = {part['delta']:.2g}.", soft_wrap=True)
    if composed:
        console.print(
            "Who uses more than one of these releases has spent what all did. The accuracies and distances here are measured on "
            "real data without noise: to choose a release by them costs more than any ε says.",
            soft_wrap=True,
        )
    if len({run.shares for run in runs}) < len({run.path.resolve() for run in runs}):
        console.print("Runs that differ in their evaluation alone share one release, which is spent for once.", soft_wrap=True)
    for failure in sweep.failures:
        console.print(f"failed: {' '.join(failure['overrides'])}: {failure['reason']}", soft_wrap=True, highlight=False)


def _differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """The first keys, at most four, in which runs differ."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({str(config.get(key)) for config in configs}) > 1][:4]
