"""Tables and figures of the papers: every one is declared well, runs small, and says what was measured and what was not."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.schema import Config, to_typed
from disk import write_json
from errors import InputError
from method.plan import Plan
from scripts.paper import sheet as sheet_module
from scripts.paper.__main__ import _then, _told_apart, main
from scripts.paper.figure import write_figure
from scripts.paper.runs import Measured, finished, jobs, refusal
from scripts.paper.sheet import Column, Kind, Sheet, every, known_as, load
from scripts.paper.table import _tex, cells, footer, write_table
from tests.command import composed
from tests.data.test_folder import class_folders
from tracking.run_dir import RunDir

SHEETS = [load(kind, paper, number, "paper") for kind, paper, number in every()]
EXPERIMENTS = sorted({(scale, name) for sheet in SHEETS for scale in sheet.scales for name in sheet.experiments})
TINY = ["device=cpu", "eval.downstream.steps=2", "method.num_samples=20"]


def planned(config: Config) -> None:
    plan = Plan.make(config.method, config.dataset, config.privacy)
    document = plan.describe(config.method, config.dataset, config.model, config.privacy)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@pytest.mark.parametrize("experiment", [name for scale, name in EXPERIMENTS if scale == "smoke"])
def test_the_last_run_of_every_experiment_has_a_plan_at_smoke_scale(experiment):
    config = to_typed(composed(*jobs(experiment, "smoke")[-1]))
    assert (config.scale, config.dataset.name) == ("smoke", "digits")
    assert config.privacy.noise_seed is None
    planned(config)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "experiment"), [(scale, name) for scale, name in EXPERIMENTS if scale != "smoke"])
def test_every_run_at_a_larger_scale_has_a_plan(scale, experiment, tmp_path):
    places = [f"dataset.path={class_folders(tmp_path / 'own', 40)}"] if experiment == "pe/cinic10" else []
    for job in jobs(experiment, scale):
        config = to_typed(composed(*job, *places))
        assert config.scale == scale
        assert (config.dataset.name == "digits") == experiment.startswith("digits/")
        planned(config)


HOUR = 0.72e18  # FLOPs: an hour at 200 TFLOP/s


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for scale, name in EXPERIMENTS if scale == "hour"])
def test_a_run_at_hour_scale_takes_about_an_hour_and_the_budget_of_its_row(experiment, tmp_path):
    places = [f"dataset.path={class_folders(tmp_path / 'own', 40)}"] if experiment == "pe/cinic10" else []
    for whole, job in zip(jobs(experiment, "paper"), jobs(experiment, "hour"), strict=True):
        printed, config = to_typed(composed(*whole, *places)), to_typed(composed(*job, *places))
        plan = Plan.make(config.method, config.dataset, config.privacy)
        flops = plan.describe(config.method, config.dataset, config.model, config.privacy)["work"]["flops"]
        released = config.method.released(config.dataset)
        judges = config.eval.evaluators.values()
        flops += sum(judge.cost(config.dataset, config.model, released).flops for judge in judges)
        assert flops <= HOUR
        assert plan.epsilon == pytest.approx(Plan.make(printed.method, printed.dataset, printed.privacy).epsilon, rel=0.01)


def the_run(experiment: str, scale: str, *overrides: str) -> Any:
    """The settings of one run of an experiment, which are looked at key by key."""
    return to_typed(composed(*jobs(experiment, scale)[0], *overrides))


@pytest.mark.parametrize("experiment", ["pe/table1", "pe/figure5", "pe/figure7", "pe/camelyon17", "pe/camelyon17_7rounds"])
def test_pe_is_judged_by_the_classifier_of_its_appendix_and_a_shorter_training_at_hour_scale(experiment):
    printed, short = (the_run(experiment, scale).eval.downstream for scale in ("paper", "hour"))
    assert printed.steps * printed.batch_size == 200 * 50_000
    assert [one.value for one in printed.augmentations] == ["crop", "flip", "colour"]
    assert (printed.classifier.value, printed.pretrain_steps, printed.augmult) == ("wrn40_4", 0, 1)
    assert (short.steps, short.batch_size) == (5000, 512)


@pytest.mark.parametrize(("share", "evolved", "released"), [(1.0, 50_000, 50_000), (0.4, 20_000, 60_000), (0.1, 5_000, 50_000)])
def test_fewer_private_images_evolve_as_many_samples_which_are_augmented_back(share, evolved, released):
    run = the_run("pe/table2", "paper", f"dataset.fraction={share}")
    assert run.dataset.num_private == run.method.num_samples == evolved
    assert run.method.released(run.dataset) == released
    assert (run.method.threshold, run.method.iterations) == (20, 5)


@pytest.mark.parametrize(
    ("experiment", "epsilon"), [("pe/camelyon17", 9.92), ("pe/camelyon17_7rounds", 9.996), ("pe/cifar10_t10", 0.561)]
)
def test_the_budget_of_a_row_of_pe_is_the_paper_s(experiment, epsilon):
    run = the_run(experiment, "paper")
    assert Plan.make(run.method, run.dataset, run.privacy).epsilon == pytest.approx(epsilon, rel=1e-3)
    assert run.model.name == "improved_diffusion_imagenet64_cond"


def test_the_ablations_start_from_pe_without_classes():
    for experiment in ("pe/figure38", "pe/figure39", "pe/figure40", "pe/figure41"):
        assert not the_run(experiment, "paper").method.conditional
    run = the_run("pe/figure41", "paper")
    assert (run.method.threshold, run.privacy.noise_multiplier) == (10, pytest.approx(50**0.5))


def test_the_50000_samples_of_pe_s_figure_5_are_its_population_and_no_part_of_a_larger_pool():
    alone, pool = (the_run("pe/figure5", "paper", f"method.expansions={number}") for number in (0, 19))
    assert (alone.method.released(alone.dataset), alone.eval.downstream.sizes) == (50_000, [])
    assert pool.method.released(pool.dataset) == 1_000_000
    assert 50_000 not in pool.eval.downstream.sizes


def test_as_many_samples_as_the_papers_draw():
    drawn = {name: the_run(name, "paper").method.num_samples for name in ("loda/table2", "loda/table2_full", "loda/adapters")}
    assert set(drawn.values()) == {1_000_000}
    assert the_run("dpd/table1_camelyon17", "paper").method.num_samples == 302_436


def test_the_fid_of_other_images_is_no_result_of_pe():
    rows = {row.name: row for row in load(Kind.table, "pe", "M", "paper").rows}
    assert [row.experiment for row in rows.values() if 12.21 in row.published] == [None]


def test_there_is_a_sheet_for_what_the_readme_promises():
    named = {(kind.value, paper, number) for kind, paper, number in every()}
    assert {("table", "pe", "1"), ("figure", "dpd", "9"), ("table", "loda", "2"), ("table", "digits", "results")} <= named
    assert len(named) >= 30


def fake(folder: Path, config: dict, metrics: dict, epsilon: float | str = 1.0) -> Measured:
    (folder / "release").mkdir(parents=True)
    (folder / "internal" / "figures").mkdir(parents=True)
    write_json(folder / "config.yaml", {"dataset": {"name": "mnist"}, **config})
    write_json(folder / "internal" / "metrics.json", metrics)
    write_json(folder / "internal" / "computed_with.json", {"device": "CPU with AVX2"})
    write_json(folder / "internal" / "made_with.json", {"release": {"commit": "abc"}, "evaluation": {"commit": f"de{epsilon}"}})
    write_json(folder / "release" / "privacy.json", {"epsilon": epsilon, "delta": 1e-5, "num_samples": 100})
    return Measured(RunDir(folder))


@pytest.fixture
def found(tmp_path) -> dict[str, list[Measured]]:
    runs = []
    for i, (epsilon, seed, accuracy) in enumerate([(1.0, 0, 0.5), (1.0, 1, 0.6), (10.0, 0, 0.9)]):
        config = {"privacy": {"epsilon": epsilon}, "seed": seed, "method": {"timestep_mixture": [{"high": 30}]}}
        metrics = {"wrn40_4/accuracy": accuracy, "wrn40_4/accuracy_at=50": accuracy / 2, "fid/train": 10 * epsilon}
        runs.append(fake(tmp_path / str(i), config, {**metrics, "fid/train/class=7": 3.0, "time/method_seconds": 3600}, epsilon))
    return {"loda/table2": runs}


def test_a_cell_is_what_was_measured_beside_what_was_published_and_empty_where_nothing_was(found):
    sheet = load(Kind.table, "loda", "2", "paper")
    rows = {row.name: [str(cell) for cell in line] for row, line in cells(sheet, found)}
    assert rows["LoDA"] == ["55.0 ± 7.1 (2 seeds) | 60.2", "– | 62.2", "90.0 (1 seed) | 63.5"]
    assert rows["DP-SGD (cited)"] == ["– | 36.5", "– | 47.4", "– | 48.3"]
    assert rows["no DP"] == ["", "", "– | 90.7"]
    text = " ".join(footer(sheet, found))
    for part in (
        "Scale: paper",
        "3 runs, 3 hours of CPU",
        "ε as composed: 1, 10",
        "δ = 1e-05",
        "Made with commit abc; commit de1.0; commit de10.0.",
    ):
        assert part in text


def test_at_smoke_scale_nothing_published_is_shown(found):
    sheet = load(Kind.table, "loda", "2", "smoke")
    rows = {row.name: [str(cell) for cell in line] for row, line in cells(sheet, found)}
    assert rows["LoDA"] == ["55.0 ± 7.1 (2 seeds)", "", "90.0 (1 seed)"]
    assert "DP-SGD (cited)" not in rows


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


def test_a_panel_has_the_published_points_of_its_own_metric():
    sheet = load(Kind.figure, "dpd", "2", "paper")
    first = replace(sheet.rows[0], published=[[10, 9.8]])
    assert [bool(sheet.published_points(first, panel)) for panel in sheet.panels] == [True, False]
    both = replace(first, published={sheet.panels[1].metric: [[1, 2]]})
    assert [sheet.published_points(both, panel) for panel in sheet.panels] == [[], [[1, 2]]]


def test_what_a_note_says_of_the_papers_numbers_is_left_out_at_smoke_scale(found):
    sheet = replace(load(Kind.table, "loda", "2", "paper"), note="As ever.", published_note="The paper prints 90.7.")
    assert footer(sheet, found)[-2:] == ["As ever.", "The paper prints 90.7."]
    assert footer(replace(sheet, scale="smoke"), found)[-1] == "As ever."


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
    found = {
        panel.metric: [point for row in loaded.rows for point in loaded.published_points(row, panel)] for panel in loaded.panels
    }
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments=none"),
        (["table", "pe"], "arguments=table pe"),
        (["plot", "pe", "1"], "kind=plot"),
        (["table", "dpe", "1"], "paper=dpe"),
        (["table", "pe", "99"], "number=99: of what is there: table pe 1"),
        (["table", "pe", "1", "out=runs/x/release/tables"], "out=runs/x/release/tables: not inside a release/"),
        (["table", "pe", "1", "run=no"], "run=no: true or false"),
        (["table", "pe", "1", "scale=small"], "scale=small: one of paper, hour, smoke"),
        (["table", "pe", "1", "seed=0,1", "method.threshold=1,2"], "method.threshold=1,2: one value: .*iterations, seed"),
    ],
)
def test_a_wrong_name_is_one_line_before_any_run(arguments, message, here):
    with pytest.raises(InputError, match=message):
        main(arguments)
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("sheet", "override"),
    [
        (("table", "pe", "1"), "method.iterations=1,2"),  # columns
        (("figure", "dpd", "2"), "privacy.epsilon=1,10"),  # the horizontal axis
        (("figure", "pe", "4"), "method.iterations=1,2,3"),  # varied by its own experiments
        (("table", "digits", "floor"), "method=public_only,real_data"),  # rows, by a group
    ],
)
def test_several_values_are_taken_where_they_are_told_apart(sheet, override):
    kind, paper, number = sheet
    loaded = load(Kind(kind), paper, number, "paper")
    _told_apart(loaded, ["seed=0,1", override])
    with pytest.raises(InputError, match="would be averaged"):
        _told_apart(loaded, ["method.lookahead=1,2"])


def test_a_cell_of_several_settings_counts_runs_and_a_release_that_is_judged_twice_is_paid_for_once(found):
    sheet = replace(load(Kind.table, "loda", "2", "paper"), columns=[Column(name="all")])
    (first, *_), *_ = (line for _, line in cells(sheet, found))
    assert str(first).startswith("66.7 ± 20.8 (3 runs)")
    for one in found["loda/table2"][:2]:
        one.folder.noise_key.write_bytes(b"key")
    assert "3 runs, 2 hours of CPU" in footer(sheet, found)[0]


def test_a_table_runs_what_is_missing_and_is_rendered_from_what_is_there(here):
    arguments = ["table", "dpd", "timesteps", "scale=smoke", "out=out", *TINY]
    main(arguments)
    table = Path("out/smoke/dpd_table_timesteps.md").read_text()
    overrides = "ARGS='device=cpu eval.downstream.steps=2 method.num_samples=20'"
    assert f"`make table PAPER=dpd N=timesteps SCALE=smoke {overrides}`" in table
    assert table.count("Made with ") == 1
    assert f"torch {torch.__version__}" in table
    assert "(1 seed)" in table.splitlines()[4]  # biased
    assert "(1 seed)" in table.splitlines()[5]  # uniform
    written = {path: path.stat().st_mtime_ns for path in Path("runs/by_config").glob("*/internal/metrics.json")}
    assert len(written) == 2
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in Path("runs/by_config").glob("*/internal/metrics.json")} == written
    next(iter(written)).unlink()
    main([*arguments, "run=false"])
    assert len(list(Path("runs/by_config").glob("*/internal/metrics.json"))) == 1
    assert Path("out/smoke/dpd_table_timesteps.md").read_text().count("(1 seed)") == table.count("(1 seed)") // 2


def test_pictures_of_a_run_become_a_figure(here):
    main(["figure", "pe", "19", "scale=smoke", "out=out", *TINY, "method.iterations=1"])
    assert Path("out/smoke/pe_figure_19.png").exists()
    assert Path("out/smoke/pe_figure_19.svg").read_text().startswith("<svg")
    main(["figure", "pe", "20", "scale=smoke", "out=out", *TINY, "method.iterations=1"])
    assert Path("out/smoke/pe_figure_20.svg").exists()


def test_an_override_that_an_experiment_has_not_leaves_its_row_empty_and_one_that_none_has_is_refused(here, capsys):
    arguments = ["figure", "pe", "42", "scale=smoke", "out=out", "run=false"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "method.augmult=2"])  # of DP-Diffusion alone
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert "pe/cifar10 is left out: error: method.augmult: Key 'augmult' not in 'PrivateEvolution'" in told
    assert "dpd/base" not in told
    assert Path("out/smoke/pe_figure_42.md").exists()
    for key in ("method.augmultt", "+method.augmultt"):
        with pytest.raises(Exception, match="augmultt"):
            main([*arguments, f"{key}=2", "out=other"])
    assert not Path("other").exists()


def test_of_several_values_those_that_an_experiment_has_no_settings_for_are_told_and_left_out(here, capsys):
    assert refusal("pe/figure30", "hour", iterations := ["method.iterations=99,98"])
    known = jobs("pe/figure30", "hour")[0]
    (value,) = [word for word in known if word.startswith("method.iterations=")]
    assert refusal("pe/figure30", "hour", [f"{value},99"]) is None
    assert finished("pe/figure30", "hour", [f"{value},99"]) == ([], 1)
    assert "method.iterations=99: error" in capsys.readouterr().err
    assert finished("pe/figure30", "hour", iterations) == ([], 1)


def test_a_run_that_a_sweep_names_twice_counts_once(here):
    arguments = ["table", "dpd", "timesteps", "scale=smoke", "out=out", *TINY, "seed=1,1"]
    for more in ([], ["run=false"]):
        main([*arguments, *more])
        assert Path("out/smoke/dpd_table_timesteps.md").read_text().count("(1 seed)") == 4


def test_a_failed_run_leaves_its_cell_empty_and_the_exit_status_says_so(here):
    with pytest.raises(SystemExit) as end:
        main(["table", "dpd", "timesteps", "scale=smoke", "out=out", "device=cpu", "method.num_samples=5"])
    assert end.value.code == 1
    assert "(1 seed)" not in Path("out/smoke/dpd_table_timesteps.md").read_text()


def test_a_judge_that_fails_is_named_and_tried_again(tmp_path):
    sheet = replace(load(Kind.figure, "dpd", "4", "smoke"), then="scripts.nothing_here release={release}")
    runs = {"dpd/base": [fake(tmp_path / "run", {}, {})]}
    told = f"dpd/base: scripts.nothing_here release={tmp_path}/run/release"
    assert _then(sheet, runs) == _then(sheet, runs) == [told]
