"""`conf/tuned/DATASET_METHOD.yaml`: what was found for a dataset and a method, and who has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf.compose import CONFIG_DIR, compose_config
from tests.command import typed

EXPERIMENTS = sorted(Path(CONFIG_DIR, "experiment").rglob("*.yaml"))
NAMES = [path.relative_to(Path(CONFIG_DIR, "experiment")).with_suffix("").as_posix() for path in EXPERIMENTS]
PAPERS = [name for name in NAMES if name.split("/")[0] in ("pe", "dp_diffusion", "dp_loda", "dpd", "loda")]


@pytest.mark.parametrize("method", ["pe", "dp_diffusion", "dp_loda"])
@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_on_the_digits_a_method_starts_from_moments_within_the_budget(method, epsilon):
    config = typed(f"method={method}", f"privacy.epsilon={epsilon:g}")
    config.check()
    assert 0 < config.method.warm_up.epsilon < epsilon
    plain = typed(f"method={method}", f"privacy.epsilon={epsilon:g}", "tuned=none")
    plain.check()
    assert plain.method.warm_up.epsilon is None


def test_without_a_target_the_moments_get_an_epsilon_of_one():
    config = typed("privacy.epsilon=null", "privacy.noise_multiplier=2")
    config.check()
    assert config.method.warm_up.epsilon == 1


def test_another_dataset_has_none():
    assert typed("dataset=rehearsal").method.warm_up.epsilon is None


SMALL = [
    (name, ["+scale=smoke"]) for name in ("pe/cifar10", "pe/table2", "dp_diffusion/mnist", "dpd/table1_cifar10", "loda/table2")
]


@pytest.mark.parametrize(("name", "scale"), [*((name, []) for name in PAPERS), *SMALL])
def test_the_methods_of_papers_stay_as_they_are_on_the_digits_too(name, scale):
    config = compose_config([f"+experiment={name}", *scale])
    assert OmegaConf.select(config, "method.warm_up.epsilon") is None


@pytest.mark.parametrize("name", ["pe", "dp_diffusion", "dp_loda"])
def test_the_digits_table_has_each_method_both_ways(name):
    assert typed(f"+experiment=digits/{name}").method.warm_up.epsilon is None
    assert typed(f"+experiment=digits/{name}_warm_up").method.warm_up.epsilon is not None
