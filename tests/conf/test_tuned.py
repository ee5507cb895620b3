"""`conf/tuned/DATASET_METHOD.yaml`: what was found for a dataset and a method, and who has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from conf.compose import CONFIG_DIR, compose_config
from tests.command import call, typed
from tests.rejects import assert_refused, rejects

EXPERIMENTS = sorted(Path(CONFIG_DIR, "experiment").rglob("*.yaml"))
NAMES = [path.relative_to(Path(CONFIG_DIR, "experiment")).with_suffix("").as_posix() for path in EXPERIMENTS]
PAPERS = [name for name in NAMES if name.split("/")[0] in ("pe", "dp_diffusion", "dp_loda", "dpd", "loda")]


@pytest.mark.parametrize("method", ["pe", "dp_diffusion", "dp_loda"])
@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_on_the_digits_a_method_starts_from_moments_within_the_budget(method, epsilon):
    config: Any = typed(f"method={method}", f"privacy.epsilon={epsilon:g}")
    config.check()
    assert 0 < config.method.warm_up.epsilon < epsilon
    plain: Any = typed(f"method={method}", f"privacy.epsilon={epsilon:g}", "tuned=none")
    plain.check()
    assert plain.method.warm_up.epsilon is None


def test_without_a_target_the_moments_get_an_epsilon_of_one():
    config: Any = typed("privacy.epsilon=null", "privacy.noise_multiplier=2")
    config.check()
    assert config.method.warm_up.epsilon == 1


@pytest.mark.parametrize("other", ["dataset=rehearsal", "model=printed_digits", "method=dp_moments"])
def test_another_dataset_model_or_method_has_none(other):
    assert OmegaConf.select(compose_config([other]), "method.warm_up.epsilon") is None


@pytest.mark.parametrize("name", ["digits_pe", "digits/digits_unet/pee", ""])
def test_a_misspelt_one_is_refused_before_anything_runs(name, here):
    with rejects("tuned", name, "none", "digits/digits_unet/pe"):
        compose_config([f"tuned={name}"])
    assert_refused(call(f"tuned={name}"), "tuned", name)


def test_a_warm_up_that_is_off_leaves_no_part_of_it():
    with rejects("method.warm_up.degree", 3.0, "tuned=none"):
        typed("method.warm_up.epsilon=null").check()


SMALL = [
    (name, ["+scale=smoke"]) for name in ("pe/cifar10", "pe/table2", "dp_diffusion/mnist", "dpd/table1_cifar10", "loda/table2")
]


@pytest.mark.parametrize(("name", "scale"), [*((name, []) for name in PAPERS), *SMALL])
def test_the_methods_of_papers_stay_as_they_are_on_the_digits_too(name, scale):
    config = compose_config([f"+experiment={name}", *scale])
    assert OmegaConf.select(config, "method.warm_up.epsilon") is None


@pytest.mark.parametrize("name", ["pe", "dp_diffusion", "dp_loda"])
def test_the_digits_table_has_each_method_both_ways(name):
    alone, warm = (compose_config([f"+experiment=digits/{name}{end}"]) for end in ("", "_warm_up"))
    assert alone.method.warm_up.epsilon is None
    assert warm.method.warm_up.epsilon is not None
