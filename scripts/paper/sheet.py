"""What a table or a figure of a paper is made of: `conf/table/PAPER/N.yaml` and `conf/figure/PAPER/N.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.resolvers import register_resolvers
from errors import require, unusable_file
from pipeline.config import SCALES

CONF = Path(__file__).parents[2] / "conf"
PAPERS = {
    "pe": "Lin et al. 2024",
    "dpd": "Ghalebikesabi et al. 2023",
    "loda": "Liu et al. 2024",
    "digits": "the embedded digits",
    "mnist": "MNIST",
    "pneumonia": "PneumoniaMNIST",
}


class Kind(Enum):
    table = "table"
    figure = "figure"


@dataclass(kw_only=True)
class Series:
    """A row of a table or a curve of a figure: runs of one experiment, or numbers that others published."""

    name: str
    experiment: str | None = None  # null: cited alone
    where: dict[str, Any] = field(default_factory=dict)  # which of its runs: key of the configuration, and its value
    metric: str | None = None
    # table: one for each column, or null; figure: [x, y] pairs of the first panel, or of each metric's
    published: Any = None  # an empty list, once loaded
    level: bool = False  # figure: a horizontal line, as its runs have no x


@dataclass(kw_only=True)
class Column:
    name: str
    where: dict[str, Any] = field(default_factory=dict)
    metric: str | None = None


@dataclass(kw_only=True)
class Panel:
    metric: str
    label: str


@dataclass(kw_only=True)
class Sheet:
    """A figure is drawn from `panels` and `rows`, or shows `pictures` of a run. `Measured.value` knows `metric` and `x`."""

    title: str
    source: str  # in the paper
    rows: list[Series]
    columns: list[Column] = field(default_factory=list)
    metric: str = "accuracy"
    x: str = "epsilon"
    x_label: str = "ε"
    log: bool = False  # the horizontal axis
    panels: list[Panel] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # of internal/figures/, of the first run
    then: str | None = None  # a script that judges the first run's release before pictures are taken: module and arguments
    note: str = ""
    published_note: str = ""  # on the paper's numbers: not at smoke scale
    also: list[str] = field(default_factory=list)  # the paper's other numbers for what this shows
    scales: list[str] = field(default_factory=lambda: list(SCALES))
    scale: str = "paper"
    arguments: list[str] = field(default_factory=list)  # overrides of every run, which the sheet does not have

    @property
    def caption(self) -> str:
        return f"{self.title} ({self.source})." + (f" With {' '.join(self.arguments)}." if self.arguments else "")

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(row.experiment for row in self.rows if row.experiment))

    @property
    def beside(self) -> bool:
        """Whether what was published stands beside what was measured: digits are not a paper's data."""
        return self.scale != "smoke" and any(row.published for row in self.rows)

    @property
    def notes(self) -> list[str]:
        return [note for note in (self.note, self.published_note * (self.scale != "smoke")) if note]

    def paper_points(self, row: Series, panel: Panel) -> list[Any]:
        """[x, y] pairs."""
        if isinstance(row.published, dict):
            return row.published.get(panel.metric, [])
        return row.published if panel is self.panels[0] else []

    @property
    def varied(self) -> set[str]:
        """The keys that sweeps of its experiments give several values."""
        files = [OmegaConf.load(CONF / "experiment" / f"{name}.yaml") for name in self.experiments]
        return {str(key).lstrip("+") for file in files for key in OmegaConf.select(file, "hydra.sweeper.params", default={})}


def every() -> list[tuple[Kind, str, str]]:
    """(kind, paper, number) of all there are."""
    found = []
    for kind in Kind:
        for paper in PAPERS:
            files = sorted((CONF / kind.value / paper).glob("*.yaml"), key=lambda path: (len(path.stem), path.stem))
            found += [(kind, paper, path.stem) for path in files]
    return found


def known_as(kind: Kind, paper: str, number: str) -> str | None:
    """The sheet that has this number of the paper's among others."""
    own = [n for k, p, n in every() if (k, p) == (kind, paper)]
    if number in own:
        return number
    return next((n for n in own if number in load(kind, paper, n, "paper").also), None)


def load(kind: Kind, paper: str, number: str, scale: str) -> Sheet:
    require(paper in PAPERS, "paper", paper, f"one of {', '.join(PAPERS)}")
    numbers = [n for k, p, n in every() if (k, p) == (kind, paper)]
    require(number in numbers, "number", number, f"a {kind.value} of {paper} ({', '.join(numbers) or 'it has none here'})")
    path = CONF / kind.value / paper / f"{number}.yaml"
    register_resolvers()
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Sheet), OmegaConf.load(path), {"scale": scale})
        sheet = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise unusable_file(path, str(error).splitlines()[0]) from error
    assert isinstance(sheet, Sheet)
    for row in sheet.rows:
        row.published = row.published or []
        if kind is Kind.table:
            fits, allowed = len(row.published) in (0, len(sheet.columns)), f"one for each of {len(sheet.columns)} columns"
        else:
            metrics = [panel.metric for panel in sheet.panels]
            fits, allowed = set(row.published if isinstance(row.published, dict) else ()) <= set(metrics), f"points of {metrics}"
        require(fits, f"{path}: published", row.published, allowed)
    return sheet
