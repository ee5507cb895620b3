"""Does a release rank classifiers as real images do? (Ghalebikesabi et al. 2023, §6, Figure 4)

    python -m scripts.model_selection release=runs/…/release                                   # the small grid, on the digits
    python -m scripts.model_selection release=… dataset=cifar10 grid=table6               # the paper's grid
    python -m scripts.model_selection release=… grid.families.cnn.steps=500 out=FOLDER    # any key=value

Every cell of the grid is trained on the samples and judged on held out samples and on real test images, and trained again on as
many real training images and judged on the test images. Training on real images is not private: nothing that is written may be
shared. It goes to `out`, by default `internal/model_selection/` beside the release: cells/, and the ranks as model_selection
.json, .svg and .png. A killed run goes on with the same command: a finished cell is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING, OmegaConf

from conf.compose import compose_script
from conf.help import run_script
from data.dataset import Dataset, subset
from data.samples import SampleSet
from data.shards import open_release
from disk import write_json
from errors import require
from eval.downstream import split
from models.classifiers.training import Recipe, accuracy, train
from pipeline.config import check_device, refuse_added_keys, torch_device
from store.run_dir import run_of
from tracking.progress import Advance, progress

SYNTHETIC, TRANSFER, REAL = "synthetic", "trained on samples", "real"
_FIGURE = (TRANSFER, "real test, trained on samples, %"), (REAL, "real test, trained on real images, %")


@dataclass(kw_only=True)
class Family(Recipe):
    """One classifier under every pair of a learning rate and a weight decay."""

    learning_rates: list[float] = MISSING
    weight_decays: list[float] = MISSING

    @property
    def cells(self) -> list[Family]:
        pairs = product(self.learning_rates, self.weight_decays)
        return [
            replace(self, learning_rate=rate, weight_decay=decay, learning_rates=[rate], weight_decays=[decay])
            for rate, decay in pairs
        ]


@dataclass(kw_only=True)
class Grid:
    families: dict[str, Family] = field(default_factory=dict)
    holdout: float = 0.2  # share of the samples that classifiers trained on the rest are tested on


@dataclass(kw_only=True)
class Selecting:
    release: str = MISSING  # a release/ folder, an npz, or a folder of shards
    dataset: Dataset = MISSING
    grid: Grid = MISSING
    out: str | None = None
    seed: int = 0
    device: str = "auto"


@dataclass
class Images:
    """What cells are trained and tested on; the two training sets are equally large."""

    samples: SampleSet
    held_out: SampleSet
    real: SampleSet
    test: SampleSet

    @classmethod
    def make(cls, samples: SampleSet, dataset: Dataset, holdout: float) -> Images:
        kept, held_out = split(samples, holdout)
        real = dataset.private()
        size = min(len(kept), len(real))
        parts = [part[subset(part.labels, size, stratified=True)] for part in (kept, real)]
        return cls(parts[0], held_out, parts[1], dataset.test())


def main(overrides: list[str]) -> None:
    # Setup
    settings = _settings(overrides)
    release, grid, dataset = Path(settings.release), settings.grid, settings.dataset
    samples = open_release(release, dataset)
    require(samples.num_classes > 1, "release", release, "samples with classes")
    dataset.prepare()
    device = torch_device(settings.device)
    out = Path(settings.out) if settings.out else run_of(release).internal / "model_selection"
    require("release" not in out.resolve().parts, "out", out, "outside release/ folders, which may be shared")
    (out / "cells").mkdir(parents=True, exist_ok=True)
    images = Images.make(samples, dataset, grid.holdout)
    cells = [(name, cell) for name, family in grid.families.items() for cell in family.cells]
    around = {"samples": samples.digest(), "dataset": _plain(dataset), "holdout": grid.holdout, "seed": settings.seed}

    # Run
    found = []
    with progress("cells, on samples and on real images", sum(2 * cell.steps for _, cell in cells)) as advance:
        for name, cell in cells:
            asked = {"recipe": _plain(cell), **around}
            path = out / "cells" / f"{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]}.json"
            if path.exists():
                advance(2 * cell.steps)
            else:
                write_json(path, {"asked": asked, "accuracy": judged(cell, images, settings.seed, device, advance)})
            known = json.loads(path.read_text())["accuracy"]
            found.append({"family": name, "learning_rate": cell.learning_rate, "weight_decay": cell.weight_decay, **known})

    # Report
    summary = ranking(found)
    write_json(out / "model_selection.json", {**summary, "cells": found})
    _plot(out, found, summary)
    for name, value in summary.items():
        print(f"{name:<52} {'–' if value is None else f'{value:.4g}'}")
    print(f"classifiers were trained on real images without privacy: nothing of this may be shared: {out}")


def judged(cell: Recipe, images: Images, seed: int, device: torch.device, advance: Advance) -> dict[str, float]:
    """Of one cell: accuracy on held out samples and on real test images, and on the latter once trained on real ones."""
    on_samples = train(images.samples, cell, seed=seed, device=device, advance=advance)
    on_real = train(images.real, cell, seed=seed, device=device, advance=advance)
    return {
        SYNTHETIC: accuracy(on_samples, images.held_out, device),
        TRANSFER: accuracy(on_samples, images.test, device),
        REAL: accuracy(on_real, images.test, device),
    }


def ranking(cells: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Spearman's rank correlation of accuracy on samples with both on real images, and what choosing by the samples costs.

    A rank is that of the cell which is best on held out samples, 1 the best; a correlation that is not defined is None.
    """
    from scipy.stats import spearmanr

    synthetic = np.array([cell[SYNTHETIC] for cell in cells])
    summary: dict[str, float | None] = {"cells": len(cells)}
    for key in (TRANSFER, REAL):
        real = np.array([cell[key] for cell in cells])
        varied = len(set(synthetic)) > 1 and len(set(real)) > 1
        chosen = real[np.argmax(synthetic)]
        summary[f"{key}/spearman"] = float(spearmanr(synthetic, real).statistic) if varied else None
        summary[f"{key}/rank_of_chosen"] = 1 + int((real > chosen).sum())
        summary[f"{key}/accuracy_of_chosen"] = float(chosen)
        summary[f"{key}/accuracy_of_best"] = float(real.max())
    return summary


def _settings(overrides: list[str]) -> Selecting:
    composed = compose_script("model_selection", Selecting, overrides)
    allowed = "a release/ folder, a folder of shards, or an npz of images and labels"
    require(not OmegaConf.is_missing(composed, "release"), "release", None, allowed)
    settings: Any = OmegaConf.to_object(composed)
    assert isinstance(settings, Selecting)
    refuse_added_keys(settings)
    check_device(settings.device)
    settings.dataset.check()
    grid = settings.grid
    require(bool(grid.families), "grid.families", "{}", "a mapping of one family or more")
    require(0 < grid.holdout < 1, "grid.holdout", grid.holdout, "above 0 and below 1")
    for name, family in grid.families.items():
        for key in ("learning_rates", "weight_decays"):
            require(bool(getattr(family, key)), f"grid.families.{name}.{key}", "[]", "a list of one or more")
        for cell in family.cells:
            cell.check_recipe(f"grid.families.{name}")
    return settings


def _plain(component: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.structured(component), enum_to_str=True)


def _plot(out: Path, cells: Sequence[Mapping[str, Any]], summary: Mapping[str, float | None]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
    for axes, (key, title) in zip(panels, _FIGURE, strict=True):
        for marker, family in zip("osD^vPX<>" * 9, dict.fromkeys(cell["family"] for cell in cells), strict=False):
            mine = [cell for cell in cells if cell["family"] == family]
            axes.plot(*([100 * cell[name] for cell in mine] for name in (SYNTHETIC, key)), marker, label=family)
        rho = summary[f"{key}/spearman"]
        axes.set(xlabel="held out samples, trained on samples, %", ylabel=title)
        axes.set_title("ranks not defined" if rho is None else f"Spearman's ρ = {rho:.2f}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    for kind in ("svg", "png"):
        figure.savefig(out / f"model_selection.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    run_script(main, __doc__)
