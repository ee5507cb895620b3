"""A table of a paper: measured beside published, as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disk import write_whole
from scripts.paper.runs import Measured
from scripts.paper.sheet import Series, Sheet
from tracking.results import shown_epsilon

Found = Mapping[str, Sequence[Measured]]  # by experiment


@dataclass
class Cell:
    values: list[float]
    published: float | None
    digits: int = 1
    of: str = "seed"  # what the values differ in; "run", where in more than the seed

    def __str__(self) -> str:
        return " | ".join(self._parts(bar="±"))

    def latex(self) -> str:
        return " | ".join(self._parts(bar=r"$\pm$"))

    def _parts(self, bar: str) -> list[str]:
        known = [] if self.published is None else [f"{self.published:g}"]
        return [self._measured(bar), *known] if known else [self._measured(bar)] if self.values else []

    def _measured(self, bar: str) -> str:
        if not self.values:
            return "–"
        mean, number = f"{np.mean(self.values):.{self.digits}f}", len(self.values)
        if number == 1:
            return f"{mean} (1 {self.of})"
        return f"{mean} {bar} {np.std(self.values, ddof=1):.{self.digits}f} ({number} {self.of}s)"


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
            published = row.published[i] if sheet.beside and row.published else None
            numbers = [float(value) for value in values.values() if value is not None]
            seeds = {one.setting("seed") for one, value in values.items() if value is not None}
            digits = 1 if max(numbers, default=10) >= 2 else 2  # shares need two
            line.append(Cell(numbers, published, digits, of="seed" if len(seeds) == len(numbers) else "run"))
        rows.append((row, line))
    return rows


def footer(sheet: Sheet, found: Found) -> list[str]:
    """What every number rests on."""
    runs = list({one.folder.path.resolve(): one for ones in found.values() for one in ones}.values())
    if not runs:
        return [f"Scale: {sheet.scale}. Nothing has been run."]
    spent = dict.fromkeys(shown_epsilon(value) for value in sorted(float(one.certificate["epsilon"]) for one in runs))
    deltas = dict.fromkeys(f"{value:.2g}" for value in sorted(float(one.certificate["delta"]) for one in runs))
    data = sorted({str(one.setting("dataset.name")) for one in runs})
    releases = {one.folder.shares: one for one in runs}
    seconds = sum(one.seconds("method") for one in releases.values()) + sum(one.seconds("evaluation") for one in runs)
    lines = [
        f"Scale: {sheet.scale}; data: {', '.join(data)}; {len(runs)} runs, {seconds / 3600:.2g} hours of "
        f"{'GPU' if any(one.on_gpu for one in runs) else 'CPU'}.",
        f"ε as composed: {', '.join(spent)}; δ = {', '.join(deltas)}.",
    ]
    made = sorted({made for one in runs for made in one.made_with})
    lines += [f"Made with {'; '.join(made)}."] if made else []
    if sheet.scale == "smoke":
        lines.append(
            "It shows that every run behind it runs, on 8×8 digits with a small CNN: no number here compares to the paper's."
        )
    return [*lines, *([sheet.note] if sheet.note else [])]


def write_table(sheet: Sheet, found: Found, stem: Path, command: str) -> list[Path]:
    rows, below = cells(sheet, found), footer(sheet, found)
    header = ["", *(column.name for column in sheet.columns)]
    body = [[row.name, *(str(cell) for cell in line)] for row, line in rows]
    beside = " Cells: measured (seeds) | published; – is not measured." if sheet.beside else ""
    caption = f"{sheet.title} ({sheet.source}).{beside}"
    texts = {
        ".md": _markdown(caption, header, body, [*below, f"`{command}`"]),
        ".tex": _latex(caption, header, [[row.name, *(cell.latex() for cell in line)] for row, line in rows], below),
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
    "∞": r"$\infty$",
}
_ESCAPED |= {"–": "--", "√": r"$\surd$", "·": r"$\cdot$", "×": r"$\times$", "|": r"\textbar{}"}


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
            known = "" if cell.published is None else cell.published
            lines.append([row.name, column.name, *summary(cell.values), known, sheet.scale])
    return as_csv(["row", "column", "mean", "standard_deviation", "runs", "published", "scale"], lines)


def as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    return out.getvalue()


def summary(values: Sequence[float]) -> tuple[str, str, int]:
    """Mean, standard deviation and number, as CSV has them: empty where there is none."""
    mean = f"{np.mean(values):.6g}" if values else ""
    spread = f"{np.std(values, ddof=1):.6g}" if len(values) > 1 else ""
    return mean, spread, len(values)
