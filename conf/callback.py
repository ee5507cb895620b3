"""Hydra's sweep beside ours: which one runs, and its report at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from disk import private_folder, write_json
from pipeline.selection import Candidate
from privacy.risk import format_epsilon
from store.sweep import Sweep
from tracking.results import accuracy, distance
from tracking.settings import differing, flat


def running_sweep() -> Sweep | None:
    """The sweep that this job belongs to, if it does."""
    config = HydraConfig.get()
    if config.mode is not RunMode.MULTIRUN:
        return None
    return Sweep(Path(config.sweep.dir))


def sweep_name(sweep: Sweep) -> str:
    """Its experiment's, or else its folder's."""
    return str(HydraConfig.get().runtime.choices.get("experiment") or sweep.folder.name)


class Report(Callback):
    """At the end of a sweep: its runs beside what they spent, all together and each; what failed."""

    status = 0  # of the last sweep of this process
    sweep: Sweep | None = None
    candidates: ClassVar[list[Candidate]] = []  # of a selection, whose runs begin when all are known
    store: Path | None = None  # where it lies

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
    private_folder(sweep.internal)
    write_json(sweep.report, {"composed": composed, "failed": sweep.failures})
    table = Table(title=f"{sweep.folder}: {len(runs)} runs")
    configs = [flat(yaml.safe_load(run.config.read_text())) for run in runs]
    keys = differing(configs)[:4]
    for column in ("", *keys, "ε spent", "accuracy, %", "distance"):
        table.add_column(column, justify="right")
    for run, config in zip(runs, configs, strict=True):
        metrics = json.loads(run.metrics.read_text()) if run.finished else {}
        right, far = accuracy(metrics), distance(metrics)
        numbers = ("–" if right is None else f"{100 * right:.1f}", "–" if far is None else f"{far:.1f}")
        document = run.certificate  # of a release that it may share, whether or not its own evaluation ended
        spent = "–" if document is None else format_epsilon(document["epsilon"])
        table.add_row(run.path.name, *(str(config.get(key)) for key in keys), spent, *numbers)
    console = Console()
    console.print(table)
    for part in composed:
        each = ", ".join(dict.fromkeys(format_epsilon(value) for value in part["spent"]))
        count, total = part["runs"], format_epsilon(part["epsilon"])
        sentence = f"{part['dataset']}: each of {count} release(s) spent ε = {each}; all together ε = {total}"
        console.print(f"{sentence} at δ = {part['delta']:.2g}.", soft_wrap=True)
    if composed:
        console.print(
            "Who uses more than one of these releases has spent what all did. The accuracies and distances here are measured on "
            "real data without noise: to choose a release by them costs more than any ε says.",
            soft_wrap=True,
        )
    if len({run.making.path.resolve() for run in runs}) < len({run.path.resolve() for run in runs}):
        console.print("Runs that differ in their evaluation alone share one release, which is spent for once.", soft_wrap=True)
    for failure in sweep.failures:
        where = f" ({failure['error']})" if "error" in failure else ""
        told = f"failed: {' '.join(failure['overrides'])}: {failure['reason']}{where}"
        console.print(told, soft_wrap=True, highlight=False, markup=False)
