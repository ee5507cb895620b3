"""The dashboard: which runs are compared as one, how settings are told apart, and which is the best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboard.comparison import compared, described
from scripts.dashboard.folders import Contents, find, read
from tests.scripts.dashboard.fake_runs import fake_run


def rows(place: Path) -> list[dict[str, Any]]:
    return described(read(path, path.name, Contents())[0] for path in find([place]))


def lines(place: Path) -> list[dict[str, Any]]:
    return compared(rows(place))


def test_a_line_is_the_mean_and_spread_over_seeds(tmp_path):
    for seed, accuracy in enumerate((0.7, 0.8, 0.9)):
        fake_run(tmp_path / str(seed), epsilon=1.0 - 1e-9 * seed, seed=seed, accuracy=accuracy)
    (line,) = lines(tmp_path)
    assert (line["dataset"], line["method"], line["variant"], line["seeds"]) == ("digits", "pe", "", "3 seeds")
    assert line["accuracy"] == {"mean": pytest.approx(0.8), "spread": pytest.approx(0.1), "runs": 3, "best": False}
    assert line["runs"] == [0, 1, 2]


def test_one_run_has_no_spread_and_one_seed_twice_is_two_runs(tmp_path):
    fake_run(tmp_path / "a")
    (line,) = lines(tmp_path)
    assert (line["accuracy"]["spread"], line["seeds"]) == (None, "1 seed")
    fake_run(tmp_path / "b")
    (line,) = lines(tmp_path)
    assert line["seeds"] == "2 runs"


def test_a_measure_says_how_many_runs_have_it(tmp_path):
    fake_run(tmp_path / "a", distance=1.0)
    fake_run(tmp_path / "b", seed=1, distance=math.nan)
    (line,) = lines(tmp_path)
    assert (line["distance"]["runs"], line["accuracy"]["runs"]) == (1, 2)


def test_adapters_are_told_apart_by_name_and_what_goes_with_it_is_not_lost(tmp_path):
    for adapter, rate in (("loda", 0.01), ("norm_bias", 0.03)):
        for seed in (0, 1):
            tuned = {"method.adapter": adapter, "method.learning_rate": rate}
            fake_run(tmp_path / f"{adapter}{seed}", "dp_loda", seed=seed, settings=tuned)
    found = lines(tmp_path)
    assert [(line["variant"], line["seeds"]) for line in found] == [("adapter=loda", "2 seeds"), ("adapter=norm_bias", "2 seeds")]
    assert [line["others"] for line in found] == ["learning_rate=0.01", "learning_rate=0.03"]


def test_the_only_adapter_is_named(tmp_path):
    fake_run(tmp_path / "a", "dp_loda", settings={"method.adapter": "loda"})
    assert [line["variant"] for line in lines(tmp_path)] == ["adapter=loda"]


@pytest.mark.parametrize(
    ("key", "other", "told"),
    [
        ("method.num_samples", 7, "num_samples=7"),
        ("model.guidance", 2.0, "model.guidance=2.0"),
        ("privacy.unit", "user", "privacy.unit=user"),
        ("scale", "smoke", "scale=smoke"),
    ],
)
def test_settings_of_a_method_are_never_averaged(tmp_path, key, other, told):
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", seed=1, settings={key: other})
    found = lines(tmp_path)
    assert [line["seeds"] for line in found] == ["1 seed"] * 2
    assert told in [line["variant"] for line in found]


@pytest.mark.parametrize(
    ("key", "other"), [("dataset.fraction", 0.5), ("eval.downstream.steps", 7), ("eval.downstream.classifier", "cnn")]
)
def test_other_data_and_other_judges_stand_apart_and_do_not_compete(tmp_path, key, other):
    for name, settings in (("a", {}), ("b", {key: other})):
        fake_run(tmp_path / name, accuracy=0.5, settings=settings)
    found = lines(tmp_path)
    assert [line["dataset"] for line in found] == ["digits"] * 2
    assert f"digits, {key}={other}" in [line["data"] for line in found]
    assert not any(line["accuracy"]["best"] for line in found)


@pytest.mark.parametrize("key", ["device", "plan_only", "tracker.mode", "privacy.signing_key"])
def test_what_no_result_depends_on_sets_no_runs_apart(tmp_path, key):
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", seed=1, settings={key: "x"})
    assert [line["seeds"] for line in lines(tmp_path)] == ["2 seeds"]


def test_a_part_that_another_setting_has_not_is_told_by_its_name(tmp_path):
    moments = {"components": 64, "epsilon": 0.5, "basis": "pixels"}
    fake_run(tmp_path / "a", settings={"method.warm_up": None})
    fake_run(tmp_path / "b", settings={"method.warm_up": moments})
    assert [line["variant"] for line in lines(tmp_path)] == ["", "warm_up=on"]


def test_settings_that_differ_between_budgets_alone_need_no_name(tmp_path):
    for epsilon in (1.0, 10.0):
        fake_run(
            tmp_path / f"{epsilon}", epsilon=epsilon, settings={"privacy.epsilon": epsilon, "method.num_samples": int(epsilon)}
        )
    assert [(line["epsilon"], line["variant"]) for line in lines(tmp_path)] == [(1.0, ""), (10.0, "")]


def best(found: list[dict[str, Any]], measure: str) -> list[tuple[float, str]]:
    return [(line["epsilon"], line["method"]) for line in found if line[measure]["best"]]


def test_the_best_has_the_highest_accuracy_or_the_lowest_distance_at_its_budget(tmp_path):
    for epsilon, method, accuracy, distance in (
        (1.0, "pe", 0.7, 30.0),
        (1.0, "dp_diffusion", 0.6, 20.0),
        (10.0, "pe", 0.8, 10.0),
        (10.0, "dp_diffusion", 0.8001, 10.0),
        (3.0, "pe", 0.9, 5.0),
    ):
        fake_run(tmp_path / f"{method}{epsilon}", method, epsilon=epsilon, accuracy=accuracy, distance=distance)
    found = lines(tmp_path)
    equal = [(10.0, "dp_diffusion"), (10.0, "pe")]  # as they are shown
    assert best(found, "accuracy") == [(1.0, "pe"), *equal]  # at ε = 3 there is no other
    assert best(found, "distance") == [(1.0, "dp_diffusion"), *equal]


def test_another_delta_or_unit_is_another_budget(tmp_path):
    budgets: list[dict[str, Any]] = [{}, {"delta": 1e-5}, {"unit": "user"}]
    for number, names in enumerate(budgets):
        fake_run(tmp_path / str(number), ("pe", "dp_diffusion", "dp_loda")[number], names=names)
    assert best(lines(tmp_path), "accuracy") == []


def test_a_run_whose_noise_is_known_is_not_compared_and_one_without_any_is(study, capsys):
    fake_run(study / "runs" / "known", names={"private": False})
    fake_run(study / "runs" / "unfinished", finished=False)
    found = lines(study / "runs")
    assert [(line["method"], line["epsilon"]) for line in found] == [
        ("public_only", 0.0),
        ("pe", 1.0),
        ("pe", 10.0),
        ("real_data", "inf"),
    ]
    assert {line["seeds"] for line in found if line["method"] == "pe"} == {"2 seeds"}


def test_runs_stand_in_order_of_data_method_variant_budget_and_seed(tmp_path):
    order = [
        ("digits", "dp_loda", 1.0, 0),
        ("digits", "pe", 1.0, 0),
        ("digits", "pe", 1.0, 1),
        ("digits", "pe", 10.0, 0),
        ("mnist", "dp_loda", 1.0, 0),
    ]
    for number, (dataset, method, epsilon, seed) in enumerate(reversed(order)):
        fake_run(tmp_path / f"{number}", method, dataset, epsilon, seed)
    (tmp_path / "0 broken").mkdir()
    found = rows(tmp_path)
    assert [(row["dataset"], row["method"], row["epsilon"], row["seed"]) for row in found[:-1]] == order
    assert found[-1]["status"] == "broken"
