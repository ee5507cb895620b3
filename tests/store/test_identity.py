"""Which runs are the same: settings that differ from their defaults, whatever else a component has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from conf.compose import from_stored
from eval.distances import Frechet
from pe.evolution import PrivateEvolution
from pipeline.config import Config
from store.identity import difference, digest, plain, settings
from tests.command import typed

# A digest that moves orphans every stored run of its experiment: raise a component's version where that is meant.
PINNED = {
    "+experiment=pe/cifar10": "392d8007a9a19f63-7c176b72",
    "+experiment=pe/camelyon17": "5410321ad234eec2-7c176b72",
    "+experiment=dp_diffusion/mnist": "cd5a67121731f9f0-6bed2585",
    "+experiment=dp_diffusion/cifar10": "28fb38948b8a87d2-6bed2585",
    "+experiment=dp_loda/mnist": "a6c79aba599d283f-6bed2585",
    "+experiment=dp_loda/cifar10": "1f281abe00aa0dca-6bed2585",
    "+experiment=digits/pe": "20f761003e1b2f31-44136fa3",
    "+experiment=digits/dp_diffusion privacy.epsilon=1 seed=4": "2773d0eb251c0ce7-44136fa3",
    "+experiment=digits/dp_loda": "83c2b7e2bef472fc-44136fa3",
}


@pytest.mark.parametrize(("experiment", "expected"), PINNED.items())
def test_the_digests_of_experiments_stay(experiment, expected):
    assert digest(typed(*experiment.split())) == expected


def test_what_results_depend_on_is_in_the_digest_and_nothing_else():
    assert digest(typed()) == digest(typed("device=cpu", "tracker=wandb", "plan_only=true"))
    others = {digest(typed(override)) for override in ("seed=1", "privacy.epsilon=1", "eval.downstream.seeds=2", "+scale=smoke")}
    assert len({digest(typed()), *others}) == 5


def test_the_evaluation_has_a_digest_of_its_own_unless_a_release_depends_on_it():
    def parts(*overrides: str) -> list[str]:
        return digest(typed(*overrides)).split("-")

    judged = parts("eval.downstream.steps=7")
    assert judged[0] == parts()[0] != parts("seed=1")[0]
    assert judged[1] != parts()[1] == parts("seed=1")[1]
    chosen = ["privacy.selection_epsilon=1", "eval.downstream.choose_from=[0.1,0.03]"]
    assert parts(*chosen, "eval.downstream.steps=7")[0] != parts(*chosen)[0]
    assert parts(*chosen, "eval.frechet.enabled=false")[0] == parts(*chosen)[0]


def test_a_list_of_one_is_that_one():
    assert digest(typed("eval.frechet.reference=[train]")) == digest(typed("eval.frechet.reference=train")) == digest(typed())
    one = typed("eval.frechet.embedding=[pixels]", "eval.frechet.reference=[test]")
    assert digest(one) == digest(typed("eval.frechet.embedding=pixels", "eval.frechet.reference=test")) != digest(typed())
    stored = plain(typed("eval.frechet.reference=test"))
    stored["eval"]["frechet"]["reference"] = ["test"]  # of a run from before
    assert digest(from_stored(stored)) == digest(typed("eval.frechet.reference=test"))
    several = typed("eval.frechet.reference=[train,test]")
    assert several.eval.frechet.reference == ["train", "test"]


@dataclass(kw_only=True)
class LaterEvolution(PrivateEvolution):
    momentum: float = 0.5


@dataclass(kw_only=True)
class LaterFrechet(Frechet):
    trimmed: bool = False


def later(**changes: Any) -> Config:
    """The default settings in a version of the program that has one more setting of a method, and of an evaluator."""
    config = typed()
    config.method = LaterEvolution(**vars(config.method), **changes)
    config.eval.frechet = LaterFrechet(**vars(config.eval.frechet))
    return config


def test_a_new_setting_with_a_default_moves_no_digest():
    assert digest(later()) == digest(typed())
    assert digest(later(momentum=0.1)) != digest(typed())
    assert settings(later(momentum=0.1)).keys() - settings(typed()).keys() == {"method.momentum"}


def test_a_key_that_a_stored_configuration_lacks_counts_as_its_default():
    stored = yaml.safe_dump(plain(typed()))
    assert difference(stored, later()) is None
    assert difference(stored, later(momentum=0.1)) == "method.momentum: 0.5 before, 0.1 now"


def test_a_raised_version_is_another_run(monkeypatch):
    before = digest(typed())
    stored = yaml.safe_dump(plain(typed()))
    monkeypatch.setattr(PrivateEvolution, "version", 2, raising=False)
    assert digest(typed()) != before
    assert difference(stored, typed()) == "method.version: 1 before, 2 now"


def test_the_evaluation_and_what_no_result_depends_on_may_differ_in_a_stored_run():
    stored = yaml.safe_dump(plain(typed("eval=none", "tracker=wandb", "device=cpu")))
    assert difference(stored, typed()) is None
    assert difference(stored, typed("seed=1")) == "seed: 0 before, 1 now"
    assert difference("a list", typed()) == "its config.yaml is of another program"


@pytest.mark.parametrize("overrides", [[], ["method=dp_loda"], ["method=real_data"], ["+experiment=pe/cifar10"]])
def test_a_stored_configuration_is_read_back(overrides):
    config = typed(*overrides)
    values = yaml.safe_load(yaml.safe_dump(plain(config)))
    assert plain(from_stored(values)) == plain(config)
    del values["eval"]["manifold"], values["model"]["clip"]
    assert digest(from_stored(values)) == digest(config)
