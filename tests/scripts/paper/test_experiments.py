"""The experiments behind the tables and figures of the papers: each has a plan at every scale, and the settings of its paper."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conf.compose import to_typed
from pipeline.config import Config
from pipeline.plan import Plan, network_work
from pipeline.plan_document import plan_document
from scripts.paper.runs import jobs
from tests.command import composed
from tests.data.test_folder import class_folders
from tests.sheets import SHEETS

EXPERIMENTS = sorted({(scale, name) for sheet in SHEETS for scale in sheet.scales for name in sheet.experiments})


def planned(config: Config) -> None:
    plan = Plan.make(config.method, config.dataset, config.privacy)
    document = plan_document(plan, config)
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
        flops = network_work(config.method, config.dataset, config.model)["work"]["flops"]
        released = config.method.released(config.dataset)
        judges = config.judging.evaluators.values()
        costs = [judge.cost(config.dataset, config.model, config.spaces, released) for judge in judges]
        flops += sum(cost.flops for cost in costs if cost is not None)
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
