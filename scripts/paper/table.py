"""A table of a paper: measured beside published, as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disk import write_whole
from errors import format_value
from privacy.risk import format_epsilon
from scripts.paper.runs import Measured
from scripts.paper.sheet import Series, Sheet
from store.identity import repeated
from tracking.results import counted, mean_and_spread
from tracking.settings import telling

Found = Mapping[str, Sequence[Measured]]  # by experiment


@dataclass
class Cell:
    metric: str
    values: dict[Measured, float]
    paper_value: float | None

    def __str__(self) -> str:
        known = [] if self.paper_value is None else [f"{self.paper_value:g}"]
        return " | ".join([self._measured(), *known]) if known or self.values else ""

    def _measured(self) -> str:
        if not self.values:
            return "–"
        numbers = list(self.values.values())
        digits = 1 if max(numbers) >= 2 else 2  # shares need two
        mean, spread = mean_and_spread(numbers)
        shown = f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
        return f"{shown} ({counted([run.setting('seed') for run in self.values])})"


def cells(sheet: Sheet, found: Found) -> list[tuple[Series, list[Cell]]]:
    """Rows of cells. At a smaller scale than the paper's on other data, nothing published stands beside them."""
    smoke = sheet.scale == "smoke"
    rows = []
    for row in sheet.rows:
        if smoke and row.experiment is None:
            continue
        runs = [one for one in found.get(row.experiment or "", []) if one.matches(row.where)]
        line = []
        for i, column in enumerate(sheet.columns):
            metric = column.metric or row.metric or sheet.metric
            values = {one: one.value(metric) for one in runs if one.matches(column.where)}
            paper_value = row.published[i] if sheet.beside and row.published else None
            line.append(Cell(metric, {one: float(value) for one, value in values.items() if value is not None}, paper_value))
        rows.append((row, line))
    return rows


def footer(sheet: Sheet, found: Found) -> list[str]:
    """What every number rests on."""
    runs = list({one.folder.path.resolve(): one for ones in found.values() for one in ones}.values())
    if not runs:
        return [f"Scale: {sheet.scale}. Nothing has been run."]
    data = sorted({str(one.setting("dataset.name")) for one in runs})
    epsilon, delta, hours, device = rests_on(runs)
    took = f"{len(runs)} run{'s' * (len(runs) > 1)}, {hours} hours by the clock on {device}"
    lines = [
        f"Scale: {sheet.scale}; data: {', '.join(data)}; {took}.",
        f"ε as composed: {epsilon}; δ = {delta}.",
    ]
    mixed = _averaged_over(sheet, found)
    lines += [f"Averaged over runs that differ in {'; '.join(mixed)}."] if mixed else []
    made = sorted({made for one in runs for made in one.environment})
    lines += [f"Made with {'; '.join(made)}."] if made else []
    if sheet.scale == "smoke":
        lines.append(
            "It shows that every run behind it runs, on 8×8 digits with a small CNN: no number here compares to the paper's."
        )
    return [*lines, *sheet.notes]


def _averaged_over(sheet: Sheet, found: Found) -> list[str]:
    """The settings, seeds aside, in which runs of one cell or point differ, each with its values."""
    parts: dict[Any, list[Measured]] = defaultdict(list)
    for i, row in enumerate(sheet.rows):
        for run in found.get(row.experiment or "", []):
            if run.matches(row.where):
                cells = [j for j, column in enumerate(sheet.columns) if run.matches(column.where)]
                point = [] if sheet.pictures else [None if row.level else run.value(sheet.x)]
                for place in cells if sheet.columns else point:
                    parts[i, place].append(run)
    mixed: dict[str, dict[str, None]] = defaultdict(dict)
    for runs in parts.values():
        settings = [repeated(run.config) for run in runs]
        for key in telling(settings):
            mixed[key] |= dict.fromkeys(format_value(one.get(key)) for one in settings)
    return [f"{key}: {', '.join(values)}" for key, values in mixed.items()]


def rests_on(runs: Iterable[Measured]) -> tuple[str, str, str, str]:
    """ε as composed and δ, each value once; hours, where a release that was judged twice counts once; GPU or CPU."""
    runs = list(runs)
    spent = dict.fromkeys(format_epsilon(value) for value in sorted(float(one.certificate["epsilon"]) for one in runs))
    deltas = dict.fromkeys(f"{value:.2g}" for value in sorted(float(one.certificate["delta"]) for one in runs))
    releases = {one.folder.making.path.resolve(): one for one in runs}
    seconds = sum(one.seconds("method") for one in releases.values()) + sum(one.seconds("evaluation") for one in runs)
    device = "GPU" if any(one.on_gpu for one in runs) else "CPU"
    return ", ".join(spent), ", ".join(deltas), f"{seconds / 3600:.2g}", device


def write_table(sheet: Sheet, found: Found, stem: Path, command: str) -> list[Path]:
    rows, below = cells(sheet, found), footer(sheet, found)
    header = ["", *(column.name for column in sheet.columns)]
    body = [[row.name, *(str(cell) for cell in line)] for row, line in rows]
    beside = " Cells: measured (seeds) | published; – is not measured." if sheet.beside else ""
    caption = f"{sheet.caption}{beside}"
    texts = {
        ".md": _markdown(caption, header, body, [*below, f"`{command}`"]),
        ".tex": _latex(caption, header, body, below),
        ".csv": _csv(sheet, rows),
    }
    paths = []
    for suffix, text in texts.items():
        write_whole(path := stem.with_suffix(suffix), text)
        paths.append(path)
    return paths


def _markdown(caption: str, header: list[str], body: list[list[str]], below: list[str]) -> str:
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *([cell.replace("|", r"\|") for cell in line] for line in body)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{caption}**\n\n{table}\n\n" + "\n".join(f"{line}  " for line in below) + "\n"


_ESCAPED = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "ε": r"$\varepsilon$",
    "δ": r"$\delta$",
    "σ": r"$\sigma$",
    "φ": r"$\phi$",
    "∞": r"$\infty$",
}
_ESCAPED |= {"–": "--", "√": r"$\surd$", "·": r"$\cdot$", "×": r"$\times$", "|": r"\textbar{}", "±": r"$\pm$"}
_ESCAPED |= {"{": r"\{", "}": r"\}", "$": r"\$", "^": r"\^{}", "~": r"\~{}", "\\": r"\textbackslash{}"}


def _tex(text: str) -> str:
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _latex(caption: str, header: list[str], body: list[list[str]], below: list[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_tex(cell) for cell in cells) + r" \\"

    columns = "l" + "r" * (len(header) - 1)
    rows = [r"\toprule", line(header), r"\midrule", *(line(cells) for cells in body), r"\bottomrule"]
    table = "\n".join([rf"\begin{{tabular}}{{{columns}}}", *rows, r"\end{tabular}"])
    notes = "\n".join(f"{_tex(text)}\\\\" for text in below)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{_tex(caption)}}}\n{table}\n\n\\footnotesize\n{notes}\n\\end{{table}}\n"


def _csv(sheet: Sheet, rows: list[tuple[Series, list[Cell]]]) -> str:
    lines = []
    for row, line in rows:
        for column, cell in zip(sheet.columns, line, strict=True):
            known = "" if cell.paper_value is None else cell.paper_value
            below = rests_on(cell.values) if cell.values else ("",) * 4
            lines.append([row.name, column.name, cell.metric, *summary(list(cell.values.values())), known, *below, sheet.scale])
    header = ["row", "column", "metric", "mean", "standard_deviation", "runs", "published"]
    return as_csv([*header, "epsilon", "delta", "hours", "device", "scale"], lines)


def as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    return out.getvalue()


def summary(values: Sequence[float]) -> tuple[str, str, int]:
    """Mean, standard deviation and number, as CSV has them: empty where there is none."""
    if not values:
        return "", "", 0
    mean, spread = mean_and_spread(values)
    return f"{mean:.6g}", "" if spread is None else f"{spread:.6g}", len(values)
