"""Curves of what was measured: a figure of panels, as svg and png."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

POINTS = 1000  # of a curve
LETTERS, BESIDE = 13, 8  # of a legend, per inch; as wide as the mark before a name and the space after it
MEASURED = "Measured on real data without noise: not to be shared."


@contextmanager
def panels(path: Path, rows: int = 1, columns: int = 2, note: str = MEASURED) -> Iterator[np.ndarray]:
    """Axes [rows, columns] to draw on; then `path`.svg and `path`.png are written, `note` below the panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3 * columns, 3.2 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    yield axes
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    _legends(figure, axes)
    figure.supxlabel(note, fontsize="small")
    for kind in ("svg", "png"):
        figure.savefig(path.with_suffix(f".{kind}"), dpi=110, metadata={"Date": None} if kind == "svg" else None)


def _legends(figure: Any, axes: np.ndarray) -> None:
    """One above all panels, in the way of no curve, where they share some; else one in each panel that has names."""
    handle_of = [dict(zip(*reversed(one.get_legend_handles_labels()), strict=True)) for one in axes.flat]
    look: dict[str, Any] = {"frameon": False, "fontsize": "small"}
    if not set.intersection(*map(set, handle_of)):
        for one, found in zip(axes.flat, handle_of, strict=True):
            if found:
                one.legend(**look)
    else:
        labels, handles = zip(*{name: handle for found in handle_of for name, handle in found.items()}.items(), strict=True)
        width, height = figure.get_size_inches()
        columns = max(1, int(width * LETTERS / (max(map(len, labels)) + BESIDE)))
        figure.set_size_inches(width, height + 0.2 * ceil(len(labels) / columns))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, **look)


def logarithmic(axes: Any, values: Iterable[float]) -> None:
    """A logarithmic horizontal axis, with `values` as its ticks where they can be read."""
    axes.set_xscale("log")
    ticks = sorted({float(f"{x:.3g}") for x in values})
    if len(ticks) <= 6 and all(b > 1.5 * a for a, b in pairwise(ticks)):
        axes.set_xticks(ticks, [f"{x:,.0f}" if x >= 1000 else f"{x:.3g}" for x in ticks])
        axes.minorticks_off()


def shades(count: int) -> list[Any]:
    """Colours of so many curves that come one after the other, from light to dark."""
    from matplotlib import colormaps

    return [colormaps["viridis"](place) for place in np.linspace(0.9, 0, count)]


def cumulative(axes: Any, values: np.ndarray, **style: Any) -> None:
    """The share of values that are at most x; of many values, at so many of them as a figure can show."""
    ordered, shares = np.sort(values), np.arange(1, len(values) + 1) / len(values)
    drawn = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))
    axes.step(np.append(ordered[:1], ordered[drawn]), np.append(0.0, shares[drawn]), where="post", **style)
