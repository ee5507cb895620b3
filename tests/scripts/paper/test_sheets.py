"""What tables and figures of the papers are declared to be: all there are, under every number, with what was published."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from scripts.paper import sheet as sheet_module
from scripts.paper.sheet import Kind, Sheet, every, known_as, load


def test_there_is_a_sheet_for_what_the_readme_promises():
    named = {(kind.value, paper, number) for kind, paper, number in every()}
    assert {("table", "pe", "1"), ("figure", "dpd", "9"), ("table", "loda", "2"), ("table", "digits", "results")} <= named
    assert len(named) >= 30


def test_the_fid_of_other_images_is_no_result_of_pe():
    rows = {row.name: row for row in load(Kind.table, "pe", "M", "paper").rows}
    assert [row.experiment for row in rows.values() if 12.21 in row.published] == [None]


def test_a_panel_has_the_published_points_of_its_own_metric():
    sheet = load(Kind.figure, "dpd", "2", "paper")
    first = replace(sheet.rows[0], published=[[10, 9.8]])
    assert [bool(sheet.paper_points(first, panel)) for panel in sheet.panels] == [True, False]
    both = replace(first, published={sheet.panels[1].metric: [[1, 2]]})
    assert [sheet.paper_points(both, panel) for panel in sheet.panels] == [[], [[1, 2]]]


def told(sheet: Sheet) -> str:
    """What a page of it says besides numbers of cells."""
    return " ".join([sheet.title, *(column.name for column in sheet.columns), *sheet.notes])


def test_no_words_of_a_sheet_give_a_published_number_at_smoke_scale():
    for kind, paper, number in every():
        sheet = load(kind, paper, number, "smoke")
        values = re.findall(r"\d+\.\d+", str([row.published for row in sheet.rows]))
        assert not [value for value in values if re.search(rf"(?<![\d.]){re.escape(value)}(?![\d.])", told(sheet))]
        assert not re.search(r"[Tt]he paper (prints|draws)", told(sheet))


@pytest.mark.parametrize(
    ("sheet", "points"),
    [
        (("pe", "4"), {"distance": [[0.67, 7.87]]}),
        (("pe", "5"), {"accuracy": [[50_000, 81.74]], "ensemble_accuracy": [[50_000, 84.8], [1_000_000, 89.13]]}),
        (("dpd", "2"), {"distance": [[10, 9.8]], "accuracy": [[10, 72.9]]}),
        (("dpd", "9"), {"distance": [[128, 9.8]], "accuracy": [[128, 72.9]]}),
        (
            ("dpd", "3"),
            {"accuracy": [[50_000, 72.9], [1_000_000, 86.0], [50_000, 86.6]], "ensemble_accuracy": [[1_000_000, 88.0]]},
        ),
        (("loda", "adapters"), {"accuracy": [[369_272, 63.5], [10_420_000, 69.7]], "distance": []}),
    ],
)
def test_a_figure_has_every_point_that_its_paper_prints(sheet, points):
    paper, number = sheet
    loaded = load(Kind.figure, paper, number, "paper")
    found = {panel.metric: [point for row in loaded.rows for point in loaded.paper_points(row, panel)] for panel in loaded.panels}
    assert found == points


@pytest.mark.parametrize(
    ("kind", "paper", "number", "own"),
    [
        ("figure", "pe", "11", "4"), ("figure", "pe", "12", "4"), ("figure", "pe", "18", "17"), ("figure", "pe", "28", "27"),
        ("figure", "dpd", "10", "3"), ("table", "dpd", "5", "1"), ("figure", "pe", "10", "10"),
    ],
)  # fmt: skip
def test_every_number_of_the_papers_leads_to_its_sheet(kind, paper, number, own):
    assert known_as(Kind(kind), paper, number) == own


def test_a_sheet_is_found_by_the_other_numbers_that_it_shows(monkeypatch):
    whole = sheet_module.load

    def with_more(kind: Kind, paper: str, number: str, scale: str) -> Sheet:
        return replace(whole(kind, paper, number, scale), also=["18"] if number == "17" else [])

    monkeypatch.setattr(sheet_module, "load", with_more)
    assert known_as(Kind.figure, "pe", "17") == known_as(Kind.figure, "pe", "18") == "17"
    assert known_as(Kind.figure, "pe", "99") is None
