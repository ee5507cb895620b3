"""A strip of pictures: one row for each release, and one for real test images where asked for, to compare at a glance.

    python -m scripts.strip releases=[runs/floor/release,runs/pe/release] names=[floor,pe] out=strip.png
    python -m scripts.strip releases=[…] names=[…] dataset=mnist dataset.path=FOLDER real=true out=strip.png

Each row has the first `each` images of every class, nothing picked. `real=true` puts test images of `dataset` above them, which
no ε protects: the strip may be shared only where these are public, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING, OmegaConf

from conf.compose import compose_script
from conf.help import run_script
from data.dataset import Dataset
from data.grid import Block, tiled
from data.samples import SampleSet
from data.shards import open_release
from errors import reject_unless, require


@dataclass(kw_only=True)
class Stripping:
    dataset: Dataset = MISSING
    releases: list[str] = field(default_factory=list)  # their folders
    names: list[str] = field(default_factory=list)  # of the releases, to the left of their rows
    each: int = 2  # images of a class
    real: bool = False  # whether real test images are the first row
    out: str = MISSING


def main(overrides: list[str]) -> None:
    settings: Any = OmegaConf.to_object(compose_script("strip", Stripping, overrides))
    require(settings.each >= 1, "each", settings.each, "1 or more")
    count = len(settings.releases)
    require(count > 0, "releases", "[]", "a list of release folders")
    require(len(settings.names) == count, "names", settings.names, f"one for each of {count} releases")
    settings.dataset.check()
    settings.dataset.prepare()
    dataset, caption = settings.dataset, ""
    rows = [_first(dataset.test(), settings.each, "dataset", dataset.name)] if settings.real else []
    for folder in settings.releases:
        rows.append(_first(open_release(Path(folder), dataset), settings.each, "releases", folder))
    if settings.real:
        caption = f"The first row: real test images of {dataset.name}, which no ε protects."
        print("it holds real images, and may be shared only where these are public")
    tiled([Block(rows)], [*["real"] * settings.real, *settings.names], caption).save(settings.out)
    print(settings.out)


def _first(samples: SampleSet, each: int, key: str, value: str) -> np.ndarray:
    """uint8 [K · each, H, W, C], class by class."""
    found = [np.flatnonzero(samples.labels == label)[:each] for label in range(samples.num_classes)]
    fewest = min(map(len, found))
    reject_unless(fewest == each, key, value, f"a class has {fewest} images, not each={each}")
    return samples.images[np.concatenate(found)]


if __name__ == "__main__":
    run_script(main, __doc__)
