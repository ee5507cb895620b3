"""Tables and figures of the papers: what was measured beside what was published, and what was not measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import pytest

from scripts.paper.figure import write_figure
from scripts.paper.sheet import Column, Kind, load
from scripts.paper.table import _tex, cells, footer, write_table
from tests.scripts.paper.fake import fake


def test_a_cell_is_what_was_measured_beside_what_was_published_and_empty_where_nothing_was(found):
    sheet = load(Kind.table, "loda", "2", "paper")
    rows = {row.name: [str(cell) for cell in line] for row, line in cells(sheet, found)}
    assert rows["LoDA"] == ["55.0 ± 7.1 (2 seeds) | 60.2", "– | 62.2", "90.0 (1 seed) | 63.5"]
    assert rows["DP-SGD, the classifier itself"] == ["– | 36.5", "– | 47.4", "– | 48.3"]
    assert rows["no DP"] == ["", "", "– | 90.7"]
    text = " ".join(footer(sheet, found))
    for part in (
        "Scale: paper",
        "3 runs, 3 hours by the clock on CPU",
        "ε as composed: 1, 10",
        "δ = 1e-05",
        "Made with commit abc; commit de1.0; commit de10.0.",
    ):
        assert part in text


def test_at_smoke_scale_nothing_published_is_shown(found):
    sheet = load(Kind.table, "loda", "2", "smoke")
    rows = {row.name: [str(cell) for cell in line] for row, line in cells(sheet, found)}
    assert rows["LoDA"] == ["55.0 ± 7.1 (2 seeds)", "", "90.0 (1 seed)"]
    cited = [row.name for row, _ in cells(load(Kind.table, "loda", "4", "smoke"), {}) if "cited" in row.name]
    assert not cited


def test_a_table_is_written_as_markdown_latex_and_csv(found, tmp_path):
    sheet = load(Kind.table, "loda", "2", "paper")
    written = write_table(sheet, found, tmp_path / "loda_table_2", "make table PAPER=loda N=2")
    markdown, latex, numbers = (path.read_text() for path in written)
    assert [path.suffix for path in written] == [".md", ".tex", ".csv"]
    assert r"55.0 ± 7.1 (2 seeds) \| 60.2" in markdown
    assert all(line.replace(r"\|", "").count("|") == 5 for line in markdown.splitlines() if line.startswith("| "))
    assert r"\toprule" in latex
    assert r"$\varepsilon$ = 1" in latex
    assert "ε" not in latex
    rows = list(csv.DictReader(numbers.splitlines()))
    assert rows[0] == {
        "row": "LoDA",
        "column": "ε = 1",
        "metric": "accuracy",
        "mean": "55",
        "standard_deviation": "7.07107",
        "runs": "2",
        "published": "60.2",
        "epsilon": "1",
        "delta": "1e-05",
        "hours": "2",
        "device": "CPU",
        "scale": "paper",
    }
    assert rows[1]["mean"] == ""


def test_a_run_gives_values_by_name_and_several_points_where_metrics_say_so(found):
    run = found["loda/table2"][2]
    assert run.value("accuracy") == 90
    assert run.value("balanced_accuracy") is None  # of a run from before there was one
    assert run.value("distance") == 100
    assert run.value("privacy.epsilon") == run.value("epsilon") == 10
    assert run.setting("method.timestep_mixture.0.high") == 30
    assert run.value("nowhere") is None
    assert list(run.points("epsilon", "accuracy")) == [(10.0, 90.0)]
    assert list(run.points("size", "accuracy")) == [(50.0, 45.0), (100.0, 90.0)]
    assert list(run.points("class", "distance")) == [("7", 3.0)]


def test_a_figure_has_published_points_open_and_measured_ones_filled(found, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn: list[dict[str, Any]] = []
    plot = Axes.plot

    def noted(self: Axes, *args: Any, **kwargs: Any) -> Any:
        drawn.append(kwargs)
        return plot(self, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", noted)
    sheet = load(Kind.figure, "dpd", "2", "paper")
    written = write_figure(sheet, {"dpd/figure2": found["loda/table2"]}, tmp_path / "dpd_figure_2", "make figure")
    assert [path.suffix for path in written] == [".svg", ".png", ".csv", ".md"]
    published = [kwargs for kwargs in drawn if "published" in str(kwargs.get("label"))]
    assert [kwargs["fillstyle"] for kwargs in published] == ["none"] * 2  # in both panels
    drawn.clear()
    write_figure(load(Kind.figure, "dpd", "2", "smoke"), {"dpd/figure2": found["loda/table2"]}, tmp_path / "smoke", "make figure")
    assert not [kwargs for kwargs in drawn if "published" in str(kwargs.get("label"))]


def test_what_a_note_says_of_the_papers_numbers_is_left_out_at_smoke_scale(found):
    sheet = replace(load(Kind.table, "loda", "2", "paper"), note="As ever.", published_note="The paper prints 90.7.")
    assert footer(sheet, found)[-2:] == ["As ever.", "The paper prints 90.7."]
    assert footer(replace(sheet, scale="smoke"), found)[-1] == "As ever."


def test_latex_has_no_letter_that_it_reads_as_its_own():
    assert _tex("a{b}_$x^2~\\ 5 ± 1") == r"a\{b\}\_\$x\^{}2\~{}\textbackslash{} 5 $\pm$ 1"


def test_a_floor_is_a_horizontal_line(found, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    levels: list[float] = []
    monkeypatch.setattr(Axes, "axhline", lambda self, y, **kwargs: levels.append(y))
    sheet = load(Kind.figure, "digits", "results", "paper")
    flat = replace(sheet, log=False, rows=[replace(sheet.rows[0], experiment="loda/table2", level=True)])
    write_figure(flat, found, tmp_path / "digits_figure_results", "make figure")
    assert levels == [pytest.approx(200 / 3), pytest.approx(40)]
    drawn = list(csv.DictReader((tmp_path / "digits_figure_results.csv").read_text().splitlines()))
    assert [(row["metric"], row["epsilon"], row["mean"], row["runs"]) for row in drawn][:2] == [
        ("accuracy", "1.0", "55", "2"),
        ("accuracy", "10.0", "90", "1"),
    ]


def test_a_figure_of_parts_has_a_bar_for_each_row_as_long_as_its_parts_together(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn: list[tuple[str, list[str], list[float], list[float]]] = []
    barh = Axes.barh

    def noted(self: Axes, names: Any, lengths: Any, left: Any, label: str, **look: Any) -> Any:
        drawn.append((label, list(names), list(lengths), list(left)))
        return barh(self, names, lengths, left=left, label=label, **look)

    monkeypatch.setattr(Axes, "barh", noted)
    part = "time/method_seconds/part="
    runs = {
        "pe/cifar10": [
            fake(tmp_path / str(i), {}, {f"{part}other": 1.0, f"{part}random": 2.0 + i, f"{part}votes": 8.0}) for i in (0, 2)
        ],
        "dpd/base": [fake(tmp_path / "dpd", {}, {f"{part}other": 4.0, f"{part}training": 32.0})],
    }
    write_figure(load(Kind.figure, "pe", "42", "paper"), runs, tmp_path / "pe_figure_42", "make figure")
    assert drawn == [
        ("random", ["PE"], [3.0], [0.0]),
        ("votes", ["PE"], [8.0], [3.0]),
        ("training", ["DP-Diffusion"], [32.0], [0.0]),
        ("other", ["PE", "DP-Diffusion"], [1.0, 4.0], [11.0, 32.0]),
    ]
    points = list(csv.DictReader((tmp_path / "pe_figure_42.csv").read_text().splitlines()))
    assert {"curve": "PE", "part": "random", "mean": "3", "runs": "2"}.items() <= points[1].items()


def test_a_figure_without_runs_is_a_page_that_says_so(tmp_path):
    (tmp_path / "dpd_figure_2.png").write_bytes(b"of runs that are gone")
    (page,) = write_figure(load(Kind.figure, "dpd", "2", "paper"), {}, tmp_path / "dpd_figure_2", "make figure")
    assert "Nothing has been run" in page.read_text()
    assert not (tmp_path / "dpd_figure_2.png").exists()


def test_a_cell_of_several_settings_counts_runs_and_a_release_that_is_judged_twice_is_paid_for_once(found):
    sheet = replace(load(Kind.table, "loda", "2", "paper"), columns=[Column(name="all")])
    (first, *_), *_ = (line for _, line in cells(sheet, found))
    assert str(first).startswith("66.7 ± 20.8 (3 runs)")
    first_two = found["loda/table2"][:2]
    for one in first_two:
        one.folder.making = first_two[0].folder  # as in the store
    assert "3 runs, 2 hours by the clock on CPU" in footer(sheet, found)[0]


@pytest.mark.parametrize("kind", Kind)
def test_a_page_says_in_which_settings_runs_of_one_number_differ(tmp_path, kind):
    runs = [fake(tmp_path / f"{i}", {"seed": i, "method": {"adapter": name}, "privacy": {"epsilon": 1.0}}, {"cnn/accuracy": 0.5})
            for i, name in enumerate(("loda", "lora"))]  # fmt: skip
    sheet = load(*((Kind.table, "loda", "2") if kind is Kind.table else (Kind.figure, "dpd", "2")), "paper")
    experiment = sheet.experiments[0]
    told = "Averaged over runs that differ in method.adapter: loda, lora."
    assert told in footer(sheet, {experiment: runs})
    apart = [replace(sheet.rows[0], where={"method.adapter": name}) for name in ("loda", "lora")]
    for rows, found in ((apart, runs), (sheet.rows, runs[:1])):
        assert not [line for line in footer(replace(sheet, rows=rows), {experiment: found}) if line.startswith("Averaged")]


def test_the_arguments_of_a_page_are_in_its_title_in_every_form(found, tmp_path):
    sheet = replace(load(Kind.table, "loda", "2", "paper"), arguments=["seed=0,1", "method.rank=2"])
    texts = [path.read_text() for path in write_table(sheet, found, tmp_path / "table", "make table")]
    assert ["With seed=0,1 method.rank=2." in text for text in texts] == [True, True, False]  # CSV has no title


def test_balanced_accuracy_is_in_percent_and_the_auc_is_not(tmp_path):
    metrics = {"membership/auc": 0.5, "cnn/balanced_accuracy": 0.75, "cnn/auc": 0.8, "cnn/balanced_accuracy_at=50": 0.25}
    run = fake(tmp_path, {"privacy": {"epsilon": 1.0}}, metrics)
    assert (run.value("balanced_accuracy"), run.value("auc")) == (75, 0.8)
    assert list(run.points("size", "balanced_accuracy")) == [(50.0, 25.0), (100.0, 75.0)]
