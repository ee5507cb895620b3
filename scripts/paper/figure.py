"""A figure of a paper: measured points filled, published ones open; or pictures that a run drew."""

from __future__ import annotations

import base64
from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from disk import write_whole
from eval.curves import MEASURED, logarithmic, panels
from scripts.paper.sheet import Panel, Series, Sheet
from scripts.paper.table import Found, as_csv, footer, summary
from tracking.results import mean_and_spread

MARKERS = "osD^vPX<>" * 9

Points = dict[tuple[str, str], dict[Any, list[float]]]  # by row and metric: x, and y of each run


def write_figure(sheet: Sheet, found: Found, stem: Path, command: str) -> list[Path]:
    paths = _pictures(sheet, found, stem) if sheet.pictures else _curves(sheet, found, stem)
    told = [f"**{sheet.caption}**", *(f"![]({path.name})" for path in paths if path.suffix == ".png")]
    write_whole(page := stem.with_suffix(".md"), "\n\n".join([*told, "  \n".join(footer(sheet, found)), f"`{command}`"]) + "\n")
    return [*paths, page]


def _curves(sheet: Sheet, found: Found, stem: Path) -> list[Path]:
    points = {(row.name, panel.metric): _points(sheet, row, panel.metric, found) for row in sheet.rows for panel in sheet.panels}
    paths = [stem.with_suffix(kind) for kind in (".svg", ".png", ".csv")]
    if not any(points.values()):
        for path in paths:
            path.unlink(missing_ok=True)  # of runs that are gone
        return []
    note = f"{MEASURED} Open: published." if sheet.beside else MEASURED
    note += f"\nWith {' '.join(sheet.arguments)}." if sheet.arguments else ""
    with panels(stem, columns=len(sheet.panels), note=note) as axes:
        for panel, one in zip(sheet.panels, axes.flat, strict=True):
            (_draw_parts if sheet.x == "part" else _draw_curves)(one, sheet, panel, points)
    _write_points(stem.with_suffix(".csv"), sheet, points)
    return paths


def _draw_curves(axes: Any, sheet: Sheet, panel: Panel, points: Points) -> None:
    names = list(dict.fromkeys(str(x) for by_x in points.values() for x in by_x)) if sheet.x == "class" else []
    dashes = cycle(["--", ":", "-."])
    ticks: list[Any] = []
    for marker, row in zip(MARKERS, sheet.rows, strict=False):
        by_x = points[row.name, panel.metric]
        if row.level and by_x:
            height = float(np.mean([y for ys in by_x.values() for y in ys]))
            axes.axhline(height, color="grey", linestyle=next(dashes), label=row.name)
            continue
        xs = [x for x in names if x in by_x] if names else sorted(by_x)
        places = [names.index(x) for x in xs] if names else xs
        ticks += xs
        measured = [mean_and_spread(by_x[x]) for x in xs]
        means, bars = [mean for mean, _ in measured], [spread or 0.0 for _, spread in measured]
        colour = None
        if xs:
            line = axes.errorbar(places, means, bars if any(bars) else None, marker=marker, capsize=3, label=row.name)
            colour = line[0].get_color()
        if sheet.beside and (of_paper := sheet.paper_points(row, panel)):
            told = np.asarray(of_paper, dtype=float).T
            axes.plot(*told, marker=marker, fillstyle="none", linestyle=":", color=colour, label=f"{row.name}, published")
            ticks += told[0].tolist()
    axes.set(xlabel=sheet.x_label, ylabel=panel.label)
    if names:
        axes.set_xticks(range(len(names)), names)
    if sheet.log:
        logarithmic(axes, ticks)


def _draw_parts(axes: Any, sheet: Sheet, panel: Panel, points: Points) -> None:
    """A bar for each row: its parts one after the other, and their sum."""
    lengths: dict[str, dict[str, float]] = {}
    for row in sheet.rows:
        if by_part := points[row.name, panel.metric]:
            runs = max(map(len, by_part.values()))  # each has the rest, "other"
            lengths[row.name] = {part: sum(seconds) / runs for part, seconds in by_part.items()}
    ends = dict.fromkeys(lengths, 0.0)
    parts_of_all = dict.fromkeys(part for parts in lengths.values() for part in parts)
    for part in sorted(parts_of_all, key=lambda part: part == "other"):
        having = [name for name, parts in lengths.items() if part in parts]
        look = {"color": "lightgrey"} if part == "other" else {}
        axes.barh(having, [lengths[name][part] for name in having], left=[ends[name] for name in having], label=part, **look)
        ends |= {name: ends[name] + lengths[name][part] for name in having}
    for name, end in ends.items():
        axes.text(end, name, f" {end:,.3g}" if end < 1000 else f" {end:,.0f}", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel=panel.label)


def _write_points(path: Path, sheet: Sheet, points: Points) -> None:
    """What was drawn, in numbers."""
    header = ["curve", "metric", sheet.x, "mean", "standard_deviation", "runs", "scale"]
    of_curves = ((name, metric, by_x) for (name, metric), by_x in points.items())
    lines = [[name, metric, x, *summary(by_x[x]), sheet.scale] for name, metric, by_x in of_curves for x in sorted(by_x)]
    write_whole(path, as_csv(header, lines))


def _points(sheet: Sheet, row: Series, metric: str, found: Found) -> dict[Any, list[float]]:
    points: dict[Any, list[float]] = defaultdict(list)
    for run in found.get(row.experiment or "", []):
        if run.matches(row.where):
            for x, y in run.points(sheet.x, metric):
                points[x].append(float(y))
    return points


def _pictures(sheet: Sheet, found: Found, stem: Path) -> list[Path]:
    """The pictures of the first run, one beside the other; their own watermarks stay."""
    paths = []
    for row in sheet.rows:
        runs = [run for run in found.get(row.experiment or "", []) if run.matches(row.where)]
        for name in sheet.pictures if runs else []:
            source = runs[0].folder.internal / name
            if not source.exists():
                continue
            many = len(sheet.pictures) * len(sheet.rows) > 1
            label = "".join(letter if letter.isalnum() else "_" for letter in f"{row.name}_{Path(name).stem}")
            target = stem.with_name(f"{stem.name}_{label}.png" if many else f"{stem.name}.png")
            with Image.open(source) as picture:
                picture.save(target)
            drawn = source.with_suffix(".svg")
            write_whole(target.with_suffix(".svg"), drawn.read_text() if drawn.exists() else _as_svg(target))
            paths += [target, target.with_suffix(".svg")]
    return paths


def _as_svg(picture: Path) -> str:
    """Of pixels."""
    with Image.open(picture) as image:
        size = f'width="{image.width}" height="{image.height}"'
    held = base64.b64encode(picture.read_bytes()).decode()
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><image {size} href="data:image/png;base64,{held}"/></svg>\n'
