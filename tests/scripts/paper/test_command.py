"""One command a table or figure: it runs what is missing, renders what is there, and says what failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scripts.paper.__main__ import _then, _told_apart, main
from scripts.paper.runs import finished, refusal
from scripts.paper.sheet import Kind, load
from tests.rejects import rejects
from tests.scripts.paper.fake import fake

TINY = ["device=cpu", "eval.downstream.steps=2", "method.num_samples=20"]


@pytest.mark.parametrize(
    ("arguments", "key", "value", "word"),
    [
        ([], "arguments", "none", ""),
        (["table", "pe"], "arguments", "table pe", ""),
        (["plot", "pe", "1"], "kind", "plot", ""),
        (["table", "dpe", "1"], "paper", "dpe", ""),
        (["table", "pe", "99"], "number", "99", "table pe 1"),
        (["table", "pe", "1", "out=runs/x/release/tables"], "out", "runs/x/release/tables", ""),
        (["table", "pe", "1", "run=no"], "run", "no", ""),
        (["table", "pe", "1", "scale=small"], "scale", "small", "paper, hour, smoke"),
        (["table", "pe", "1", "seed=0,1", "method.threshold=1,2"], "method.threshold", "1,2", "iterations, seed"),
    ],
)
def test_a_wrong_name_is_one_line_before_any_run(arguments, key, value, word, here):
    with rejects(key, value, word):
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
    with rejects("method.lookahead", "1,2"):
        _told_apart(loaded, ["method.lookahead=1,2"])


@pytest.mark.parametrize(
    ("value", "shown"), [("1", True), ("10.0", True), ("1,5", True), ("2", False), ("2,5", False), ("null", False)]
)
def test_a_setting_that_no_column_shows_is_refused_before_anything_is_spent(value, shown):
    sheet = load(Kind.table, "loda", "2", "paper")
    if shown:
        _told_apart(sheet, [f"privacy.epsilon={value}"])
    else:
        with rejects("privacy.epsilon", value, "1.0, 5.0, 10.0"):
            _told_apart(sheet, [f"privacy.epsilon={value}"])


def written(name: str) -> Path:
    """The one page of that name below out/."""
    (found,) = Path("out").rglob(name)
    return found


def test_what_is_rendered_with_other_arguments_takes_no_other_page_s_place_and_says_so(here):
    plain = ["table", "dpd", "timesteps", "scale=smoke", "out=out", "run=false"]
    told = [[], ["privacy.epsilon=1.5"], ["privacy.epsilon=15"], ["seed=0,1"]]
    for overrides in told:
        main([*plain, *overrides])
    titles = {path: path.read_text().splitlines()[0] for path in Path("out/smoke").rglob("*.md")}
    assert "With" not in titles.pop(Path("out/smoke/dpd_table_timesteps.md"))
    assert sorted(title.partition("With ")[2] for title in titles.values()) == sorted(f"{one[0]}.**" for one in told[1:])
    for path in titles:
        assert {file.suffix for file in path.parent.iterdir()} == {".md", ".tex", ".csv"}


def test_a_group_that_an_experiment_varies_may_have_several_values():
    _told_apart(load(Kind.figure, "digits", "adapters", "paper"), ["+adapter=loda,full"])


def test_a_table_runs_what_is_missing_and_is_rendered_from_what_is_there_each_run_once(here):
    arguments = ["table", "dpd", "timesteps", "scale=smoke", "out=out", *TINY, "seed=1,1"]
    main(arguments)
    page = written("dpd_table_timesteps.md")
    table = page.read_text()
    overrides = "ARGS='device=cpu eval.downstream.steps=2 method.num_samples=20 seed=1,1'"
    assert f"`make table PAPER=dpd N=timesteps SCALE=smoke {overrides}`" in table
    assert table.count("Made with ") == 1
    assert f"torch {torch.__version__}" in table
    assert "(1 seed)" in table.splitlines()[4]  # biased
    assert "(1 seed)" in table.splitlines()[5]  # uniform
    finished = {path: path.stat().st_mtime_ns for path in Path("runs/by_config").glob("*/internal/metrics.json")}
    assert len(finished) == 2
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in Path("runs/by_config").glob("*/internal/metrics.json")} == finished
    next(iter(finished)).unlink()
    main([*arguments, "run=false"])
    assert len(list(Path("runs/by_config").glob("*/internal/metrics.json"))) == 1
    assert page.read_text().count("(1 seed)") == table.count("(1 seed)") // 2


def test_pictures_of_a_run_become_a_figure(here):
    main(["figure", "pe", "19", "scale=smoke", "out=out", *TINY, "method.iterations=1"])
    assert written("pe_figure_19.png").exists()
    assert written("pe_figure_19.svg").read_text().startswith("<svg")
    main(["figure", "pe", "20", "scale=smoke", "out=out", *TINY, "method.iterations=1"])
    assert written("pe_figure_20.svg").exists()


def test_an_override_that_an_experiment_has_not_leaves_its_row_empty_and_one_that_none_has_is_refused(here, capsys):
    arguments = ["figure", "pe", "42", "scale=smoke", "out=out", "run=false"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "method.augmult=2"])  # of DP-Diffusion alone
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert "pe/cifar10 is left out: error: method.augmult: Key 'augmult' not in 'PrivateEvolution'" in told
    assert "dpd/base" not in told
    assert written("pe_figure_42.md").exists()
    for key in ("method.augmultt", "+method.augmultt"):
        with pytest.raises(Exception, match="augmultt"):
            main([*arguments, f"{key}=2", "out=other"])
    assert not Path("other").exists()


def test_of_several_values_those_that_an_experiment_has_no_settings_for_are_told_and_left_out(here, capsys):
    one = "pe/figure30", "hour"
    refused = str(refusal(*one, ["method.iterations=99"]))
    assert [word in refused for word in ("method.iterations ", "1, 3, 5, 7", " 99")] == [True] * 3
    assert refusal(*one, ["method.iterations=99,1"]) is None
    assert finished(*one, ["method.iterations=99,1"]) == ([], 1)
    assert "method.iterations=99: error" in capsys.readouterr().err


def test_a_failed_run_leaves_its_cell_empty_and_the_exit_status_says_so(here):
    with pytest.raises(SystemExit) as end:
        main(["table", "dpd", "timesteps", "scale=smoke", "out=out", "device=cpu", "method.num_samples=5"])
    assert end.value.code == 1
    assert "(1 seed)" not in written("dpd_table_timesteps.md").read_text()


def test_a_judge_that_fails_is_named_and_tried_again(tmp_path):
    sheet = replace(load(Kind.figure, "dpd", "4", "smoke"), then="scripts.nothing_here release={release}")
    runs = {"dpd/base": [fake(tmp_path / "run", {}, {})]}
    told = f"dpd/base: scripts.nothing_here release={tmp_path}/run/release"
    assert _then(sheet, runs) == _then(sheet, runs) == [told]
