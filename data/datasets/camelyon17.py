"""Camelyon17, the patch version of WILDS (Koh et al. 2021)."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.datasets.counterpart import WithCounterpart
from data.decoding import Listing
from data.files import in_folder
from data.listed import Listed, saturated
from errors import require, unusable

Row = dict[str, str]
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")


@dataclass(kw_only=True)
class Camelyon17(Listed, WithCounterpart):
    """Tumour or not in 96×96 patches of lymph nodes, resized to `image_size`; WILDS' official splits.

    Private: the training patches (hospitals 0, 3 and 4); test: hospital 2.
    """

    name: str = "camelyon17"
    path: str = "datasets/camelyon17_v1.0"  # the folder of the official archive
    image_size: int = 64  # side of an image, in pixels
    saturation: float = 1.0  # of private and test images, to move them away from the public ones; 0 is grey, 1 as they are

    @property
    def num_train(self) -> int:
        return 302_436 if self.keep_classes is None else super().num_train

    @property
    def num_test(self) -> int:
        return 85_054

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def all_classes(self) -> list[str]:
        return ["no tumour", "tumour"]

    def check(self) -> None:
        super().check()
        require(self.image_size in (32, 64, 96), "dataset.image_size", self.image_size, "one of 32, 64, 96")
        require(0 <= self.saturation <= 10, "dataset.saturation", self.saturation, "from 0 (grey) to 10, where 1 changes nothing")

    def changed(self, pixels: np.ndarray) -> np.ndarray:
        return saturated(pixels, self.saturation)

    def lists(self) -> tuple[Listing, Listing]:
        try:
            with Path(self.path, "metadata.csv").open() as file:
                reader = csv.DictReader(file)
                rows, columns = list(reader), reader.fieldnames or []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise unusable(
                "dataset.path", self.path, f"it has no readable metadata.csv of WILDS' camelyon17_v1.0 ({error})"
            ) from error
        if missing := [column for column in COLUMNS if column not in columns]:
            raise unusable("dataset.path", self.path, f"metadata.csv has no column {missing[0]}")
        if cut := next((number for number, row in enumerate(rows, 2) if any(row[name] is None for name in COLUMNS)), None):
            raise unusable("dataset.path", self.path, f"metadata.csv is cut in row {cut}")
        return (
            self._listing(rows, lambda row: row["split"] == "0" and row["center"] in ("0", "3", "4")),
            self._listing(rows, lambda row: row["center"] == "2"),
        )

    def _listing(self, rows: list[Row], wanted: Callable[[Row], bool]) -> Listing:
        chosen = [row for row in rows if wanted(row)]
        if wrong := next((row for row in chosen if row["tumor"] not in ("0", "1")), None):
            raise unusable("dataset.path", self.path, f"metadata.csv has tumor={wrong['tumor']} for {_file(wrong)}")
        labels = np.array([int(row["tumor"]) for row in chosen], np.int64)
        names, root = [_file(row) for row in chosen], Path(self.path)
        users = [row["patient"] for row in chosen]
        return Listing(root, self.all_classes, names, labels, functools.partial(in_folder, root), users=users)


def _file(row: Row) -> str:
    node = f"patient_{row['patient']}_node_{row['node']}"
    return f"patches/{node}/patch_{node}_x_{row['x_coord']}_y_{row['y_coord']}.png"
