"""Which folders are runs, and what is read of each: a row of the table, and what is shown when it is opened."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from errors import InputError
from scripts.dashboard.pictures import data_uri
from store.identity import repeated
from store.run_dir import RunDir
from tracking.results import distance, distance_name

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CURVE_POINTS = 200  # of one curve; the file has all
INTERNAL = (
    "config.yaml",
    "internal/error.txt",
    "metrics.jsonl",
    "internal/metrics.json",
    "internal/figures",
    "internal/not_for_release",
)


@dataclass(frozen=True)
class Contents:
    """What the page may hold. Pictures of runs that are not private; numbers measured on real data."""

    private_pictures: bool = False
    private_metrics: bool = True


@dataclass
class Row:
    """A line of the table; None where it is not known."""

    folder: str
    status: str = "finished"  # or unfinished, broken
    private: bool | None = None
    problem: str = ""
    method: str = ""
    dataset: str = ""
    epsilon: float | None = None
    delta: float | None = None
    accuracy: float | None = None
    spread: float | None = None
    classifiers: float | None = None  # trained, for the spread
    classifier: str = ""
    distance: float | None = None
    space: str = ""  # which distance
    method_seconds: float | None = None
    evaluation_seconds: float | None = None
    num_samples: float | None = None
    seed: float | None = None
    picture: bool = False
    unit: str = ""  # what ε protects
    settings: dict[str, Any] = field(default_factory=dict)  # flat, without the seed; for `comparison`, and not in the page


@dataclass
class Details:
    config: str = ""
    certificate: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    shareable: list[tuple[str, str]] = field(default_factory=list)  # files: (name, link)
    internal: list[tuple[str, str]] = field(default_factory=list)
    picture: str | None = None  # a data URI


def find(places: Iterable[Path]) -> list[Path]:
    """Run folders at and below `places`, each once. An empty folder counts: a start that was refused or killed leaves one."""
    found = {folder.resolve(): folder for place in places for folder in _below(place)}
    return sorted(found.values())


def _below(place: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(place):
        folder = Path(name)
        if RunDir(folder).only_makes:
            folders.clear()
        elif _is_run(folder) or (not folders and not files and folder != place):
            folders.clear()
            yield folder
        else:
            folders[:] = sorted(name for name in folders if name != "internal" and not name.startswith("."))  # .…: half a copy
            yield from (folder / name for name in folders if (folder / name).is_symlink() and _is_run(folder / name))  # a sweep's


def _is_run(path: Path) -> bool:
    folder = RunDir(path)
    return folder.config.exists() or folder.ledger.exists() or folder.metrics.exists() or folder.release.exists()


def read(path: Path, folder: str, contents: Contents) -> tuple[dict[str, Any], dict[str, Any]]:
    """Row and details of the run at `path`, shown as `folder`. What cannot be read is said in the row, and never raises."""
    run, row, details = RunDir(path), Row(folder), Details()
    try:
        _read(run, row, details, contents)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        problem = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        row.status, row.problem = "broken", problem.splitlines()[0].replace(f"{path}/", "")
    return _strict(asdict(row)), _strict(asdict(details))


def _read(run: RunDir, row: Row, details: Details, contents: Contents) -> None:
    if not any(run.path.iterdir()):
        raise InputError("the folder is empty")
    details.internal = [_link(name, row) for name in INTERNAL if (run.path / name).exists()]
    details.config = run.config.read_text()
    config = yaml.load(details.config, LOADER)
    row.method, row.dataset = str(config["method"]["name"]), str(config["dataset"]["name"])
    row.seed, row.settings = number(config.get("seed")), repeated(config)
    details.curves = _curves(run.making.curves, contents)
    if not run.finished:
        row.status, row.problem = "unfinished", "no internal/metrics.json: still running, killed, or not evaluated"
        if run.error.exists():
            row.problem = f"broke off: {run.error.relative_to(run.path)} has the traceback and the command that goes on"
    if run.output is None:
        if run.finished:
            raise InputError("finished, but neither release/ nor internal/not_for_release is there")
        return
    released = run.output == run.release
    if released or contents.private_metrics:
        certificate = json.loads((run.output / "privacy.json").read_text())
        released &= certificate["private"] is True
        details.certificate = certificate
        row.epsilon, row.delta = number(certificate["epsilon"]), number(certificate["delta"])
        row.num_samples, row.unit = number(certificate.get("num_samples")), str(certificate.get("unit", "image"))
    row.private = released
    if not released:
        row.problem = row.problem or (details.certificate or {}).get("reason", "")
    if released:
        details.shareable = [_link(f"release/{path.name}", row) for path in sorted(run.release.iterdir())]
    if released or contents.private_pictures:
        details.picture = data_uri(run.output / "grid.png", private=not released)
        row.picture = details.picture is not None
    if run.finished and contents.private_metrics:
        details.metrics = json.loads(run.metrics.read_text())
        _measured(details.metrics, config, row)


def _link(name: str, row: Row) -> tuple[str, str]:
    return name, quote(os.fsencode(f"./{row.folder}/{name}"))


def _measured(metrics: dict[str, Any], config: dict[str, Any], row: Row) -> None:
    wanted = str(((config.get("eval") or {}).get("downstream") or {}).get("classifier"))
    named = [name.removesuffix("/accuracy") for name in metrics if name.endswith("/accuracy")]
    classifiers = sorted((name for name in named if name != "discriminator"), key=lambda name: name != wanted)
    if classifiers:
        row.classifier = classifiers[0]
        parts = (number(metrics.get(f"{row.classifier}/accuracy{part}")) for part in ("", "_spread", "_seeds"))
        row.accuracy, row.spread, row.classifiers = parts
    row.space, row.distance = distance_name(metrics) or "", number(distance(metrics))
    row.method_seconds, row.evaluation_seconds = (number(metrics.get(f"time/{of}_seconds")) for of in ("method", "evaluation"))


def number(value: Any) -> float | None:
    """What a file gives for a number; infinity may be written "inf"."""
    if value is None or isinstance(value, bool):
        return None
    found = float(value)
    return None if math.isnan(found) else found


def _curves(path: Path, contents: Contents) -> dict[str, dict[str, Any]]:
    """What was logged by step, thinned. A torn last line is that of a killed run."""
    curves: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            step, internal = entry.pop("step"), entry.pop("internal")
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        if step is None or (internal and not contents.private_metrics):
            continue
        entry.pop("seconds", None)
        for name, value in entry.items():
            curve = curves.setdefault(name, {"internal": internal, "points": []})
            curve["internal"] |= internal
            curve["points"].append([step, value])
    for curve in curves.values():
        points = curve["points"]
        last, every = len(points) - 1, math.ceil(len(points) / CURVE_POINTS)
        curve["points"] = [point for i, point in enumerate(points) if i % every == 0 or i == last]
    return curves


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: null, and "inf" as in a certificate."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
