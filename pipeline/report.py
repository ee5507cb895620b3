"""What a user sees at the end of a run: the numbers beside their floor and ceiling, and where the files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from errors import format_value
from eval.downstream import Downstream
from pipeline.config import Config
from pipeline.contents import to_look_at
from privacy.risk import format_epsilon, percent
from store.run_dir import RunDir
from tracking.results import distance

GUESSING = 0.53  # balanced accuracy of two classes, where guessing has 0.5
REFERENCES = Path(__file__).parents[1] / "eval" / "references"


def print_report(config: Config, metrics: dict[str, Any], certificate: dict[str, Any], folder: RunDir) -> None:
    table = Table(title=f"{config.method.name} on {config.dataset.name}, δ = {certificate['delta']:g}")
    for column in columns(config):
        table.add_column(column, justify="left" if not column else "right")
    for label, *cells in beside_references(config, metrics):
        table.add_row(label, *cells, style="bold" if label.endswith(config.method.name) else None)
    stored, classifier = load_references(config), config.tested_classifier
    console = Console()
    console.print(table)
    if config.judging.evaluators:
        console.print("Distance and accuracy are measured on real data without noise: they must not be shared as release/ may.")
    if stored:
        told = "Floor and ceiling" if _has_floor(stored, config) else "Ceiling"
        console.print(f"{told}: stored runs of the same evaluator ({stored['command']}).")
    if "frechet/public_features_train" in metrics:
        console.print("Fréchet distance in the space of the public feature extractor, to the real training images; not FID.")
    if "frechet/public_features_train_floor" in metrics:
        console.print(f"Two halves of them are {metrics['frechet/public_features_train_floor']:.1f} apart.")
    if beside := unbalanced(metrics, classifier.value):
        console.print(beside)
    if not certificate["private"]:
        console.print(f"[bold red]Not private:[/] {certificate['reason']}.")
    if "caution" in certificate:
        console.print(f"[bold yellow]Caution:[/] {certificate['caution']}.")
    if "risk" in certificate:  # not in those from before
        console.print(_risk(certificate["risk"], certificate["unit"]), soft_wrap=True, highlight=False)
    output = folder.output
    assert output is not None
    shown, place = to_look_at(output)
    console.print(f"{shown:<14} {place}", soft_wrap=True, highlight=False)
    console.print(f"run directory  {folder.path}", soft_wrap=True, highlight=False)
    shared = "release/ may be shared" if output == folder.release else "nothing of this run may be shared"
    console.print(f"               {shared}; all else, metrics.jsonl too, must not be")


def columns(config: Config) -> list[str]:
    """Of the table."""
    return ["", "ε spent", "Fréchet distance ↓", f"{config.tested_classifier.title} accuracy ↑"]


def beside_references(config: Config, metrics: dict[str, Any]) -> list[list[str]]:
    """The rows of the table: a run's numbers between its floor and its ceiling, where they are stored."""
    rows, stored = {config.method.name: metrics}, load_references(config)
    if stored:
        floor = {"public_only": stored["public_only"]} if _has_floor(stored, config) else {}
        rows = {**floor, **rows, "real_data": stored["real_data"]}
    found = []
    for name, row in rows.items():
        label = {"public_only": "floor: public_only", "real_data": "ceiling: real_data"}.get(name, name)
        if name == "public_only" and float(row["privacy/epsilon"]) > 0:  # its model has spent, so it is no floor
            label = name
        classifier = config.tested_classifier.value
        found.append([label, format_epsilon(row["privacy/epsilon"]), _distance(row), _accuracy(row, classifier)])
    return found


def _has_floor(stored: dict[str, Any], config: Config) -> bool:
    """Whether the stored floor is of this run's public model."""
    return stored["model"] == config.model.name


def load_references(config: Config) -> dict[str, Any] | None:
    """Stored floor and ceiling of this dataset, if they were measured with the evaluator settings of this run: by a classifier
    that is trained on what is released, so that none stands beside one that was released itself."""
    path = REFERENCES / f"{config.dataset.name}.json"
    if not path.exists() or config.method.released_classifier:
        return None
    stored = json.loads(path.read_text())
    return stored if stored["evaluators"] == evaluator_settings(config) else None


def evaluator_settings(config: Config) -> dict[str, Any]:
    """What must agree for two runs' numbers to stand in one table; the number of seeds may differ."""
    downstream = config.eval.downstream
    return {
        "frechet": [name.value for name in config.eval.frechet.compared[0]],
        "downstream": [downstream.steps, downstream.batch_size, *_other_training(downstream)],
        "n_private": config.dataset.num_private,
        "features": config.spaces.features,
    }


def _other_training(downstream: Downstream) -> list[str]:
    """What else decides an accuracy, where it is not the default."""
    aside = {"enabled", "seeds", "ensemble", "sizes", "holdout", "steps", "batch_size"}
    usual = vars(Downstream())
    return [
        f"{name}={format_value(value)}" for name, value in vars(downstream).items() if name not in aside and value != usual[name]
    ]


def _distance(row: dict[str, Any]) -> str:
    found = distance(row)
    return "–" if found is None else f"{found:.1f}"


def _accuracy(row: dict[str, Any], classifier: str) -> str:
    if f"{classifier}/accuracy" not in row:
        return "–"
    mean, spread, seeds = (row[f"{classifier}/accuracy{part}"] for part in ("", "_spread", "_seeds"))
    mean, spread, seeds = 100 * mean, 100 * spread, int(seeds)
    return f"{mean:.1f} % ± {spread:.1f} ({seeds} seeds)" if seeds > 1 else f"{mean:.1f} % (1 seed)"


def _risk(found: dict[str, Any], unit: str) -> str:
    rates, beliefs = found["true_positive_rate"], found["posterior"]
    return (
        f"Risk for one {unit}, at most: found at 0.1 / 1 / 10 % false positives: {' / '.join(map(percent, rates.values()))}; "
        f"advantage {percent(found['advantage'])}; belief 50 % → {percent(beliefs['0.5'])}, 10 % → {percent(beliefs['0.1'])} "
        f"(from {found['accountant']})."
    )


def unbalanced(metrics: dict[str, Any], classifier: str) -> str | None:
    """What to look at beside an accuracy that counts some classes for more than others."""
    rate, balanced = (metrics.get(f"{classifier}/{kind}") for kind in ("accuracy", "balanced_accuracy"))
    if rate is None or balanced is None or abs(rate - balanced) < 0.01:
        return None
    area = metrics.get(f"{classifier}/auc")
    told = f"Balanced accuracy, the mean over the classes: {100 * balanced:.1f} %"
    told = f"{told}." if area is None else f"{told}; AUC: {area:.3f}."
    if area is None or balanced >= GUESSING:  # AUC is of two classes
        return told
    orders = ", though its scores tell the classes apart (AUC)" if area >= 0.6 else ""
    return f"{told} Its decisions are no better than always guessing the larger class{orders}."
