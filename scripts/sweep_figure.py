"""Accuracy and distance of the runs of a sweep, as a figure. At the end of a sweep that asks for it, or later:

    python -m scripts.sweep_figure runs/sweeps/… --x dataset.fraction --curves method.adapter

Writes internal/figure.svg, .png and .json (what was measured) into the sweep's folder: numbers on real data, which must not be
shared as the releases may. `x` and `curves` are keys of the
configuration, or of the certificate (epsilon, trainable_parameters). A point is the mean of the runs that agree in both; its
bar is their standard deviation or, for a single run, that of its classifiers. Runs without metrics are left out, and named.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from disk import write_json
from eval.curves import logarithmic
from tracking.progress import console
from tracking.run_dir import RunDir

ACCURACY, SPREAD = "wrn40_4/accuracy", "wrn40_4/accuracy_spread"
DISTANCE = "frechet/public_features_train"


class SweepFigure(Callback):
    """For `hydra.callbacks` of an experiment that sweeps: draws when the last run is done."""

    def __init__(self, x: str, curves: str, labels: Sequence[str] = (), name: str | None = None):
        self.keys = x, curves, list(labels), name

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        draw(Path(str(config.hydra.sweep.dir)), *self.keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--x", required=True, help="the horizontal axis")
    parser.add_argument("--curves", required=True, help="one curve for each of its values")
    parser.add_argument("--labels", nargs="*", default=[], help="of the curves, in the order of the runs")
    parser.add_argument("--name", help="of the horizontal axis")
    args = parser.parse_args()
    draw(args.sweep, args.x, args.curves, args.labels, args.name)


def draw(sweep: Path, x: str, curves: str, labels: Sequence[str] = (), name: str | None = None) -> None:
    runs = [read(folder, x, curves) for folder in finished(sweep)]
    if not runs:
        return
    order = list(dict.fromkeys(run["curve"] for run in runs))
    points: dict[Any, dict[Any, list[dict[str, Any]]]] = {curve: defaultdict(list) for curve in order}
    for run in runs:
        points[run["curve"]][run["x"]].append(run)
    out = sweep / "internal"
    out.mkdir(exist_ok=True)
    write_json(out / "figure.json", {"x": x, "curves": curves, "runs": runs})
    shown = dict(zip(order, labels, strict=True)) if len(labels) == len(order) else {curve: curve for curve in order}
    _plot(out, {shown[curve]: points[curve] for curve in order}, name or x)
    console.print(f"{out}/figure.png: {len(runs)} runs, measured on real data", highlight=False, soft_wrap=True)


def finished(sweep: Path) -> list[Path]:
    folders = sorted((path.parent for path in sweep.glob("*/config.yaml")), key=lambda path: (len(path.name), path.name))
    for folder in folders:
        if not RunDir(folder).finished:
            console.print(f"{folder}: is not finished, and left out", highlight=False, soft_wrap=True)
    return [folder for folder in folders if RunDir(folder).finished]


def read(folder: Path, x: str, curves: str) -> dict[str, Any]:
    run = RunDir(folder)
    config, metrics = yaml.safe_load(run.config.read_text()), json.loads(run.metrics.read_text())
    certificate = run.certificate
    assert certificate is not None

    def value(key: str) -> Any:
        node: Any = config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        found = certificate.get(key) if node is None else node
        return found if isinstance(found, int | float | str) else json.dumps(found)

    keys = (ACCURACY, SPREAD, DISTANCE)
    measured = {key: metrics[key] for key in keys if key in metrics}
    return {"x": value(x), "curve": value(curves), "seed": config["seed"], "epsilon": certificate["epsilon"], **measured}


def _plot(out: Path, curves: dict[str, dict[Any, list[dict[str, Any]]]], name: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    for marker, (label, by_x) in zip("osD^vPX<>" * 9, curves.items(), strict=False):
        for axes, key, scale in zip(panels, (ACCURACY, DISTANCE), (100, 1), strict=True):
            known = [(x, [run for run in runs if key in run]) for x, runs in sorted(by_x.items())]
            known = [(x, runs) for x, runs in known if runs]
            mean = [scale * float(np.mean([run[key] for run in runs])) for _, runs in known]
            bars = [scale * _spread(runs, key) for _, runs in known]
            axes.errorbar([x for x, _ in known], mean, bars if any(bars) else None, marker=marker, capsize=3, label=label)
    numbers = [x for by_x in curves.values() for x in by_x]
    for axes, title in zip(panels, ("WRN-40-4 accuracy, %", "Fréchet distance"), strict=True):
        axes.set(xlabel=name, ylabel=title)
        axes.spines[["top", "right"]].set_visible(False)
        if min(numbers) > 0 and max(numbers) / min(numbers) >= 4:
            logarithmic(axes, numbers)
    panels[0].legend(frameon=False)
    for kind in ("svg", "png"):
        figure.savefig(out / f"figure.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def _spread(runs: list[dict[str, Any]], key: str) -> float:
    if len(runs) > 1:
        return float(np.std([run[key] for run in runs], ddof=1))
    return float(runs[0].get(SPREAD, 0.0)) if key == ACCURACY else 0.0


if __name__ == "__main__":
    main()
