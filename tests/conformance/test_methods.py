"""What every method keeps, whatever it does: a method is put through all of it by a line in METHODS."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.methods import PublicOnly, RealData
from conf.schema import COMPONENTS
from data.private import PrivateDataset
from data.samples import SampleSet
from dp_finetune import training
from dp_finetune.adapters import AdapterName
from dp_finetune.classifier import DPClassifier
from dp_finetune.engines import EngineName
from dp_finetune.loda import DPLoDA
from dp_finetune.method import DPDiffusion
from dp_finetune.teacher import Candidates, DPTeacher
from mean_embedding.method import DPMEPF, DPMERF
from method import Made, Method, Run
from models.classifiers.networks import ClassifierName
from models.classifiers.released import ReleasedClassifier
from models.diffusion.timesteps import Interval
from models.public.settings import EmbeddingName
from moments.method import DPMoments
from moments.warm_up import WarmUp
from pe.evolution import InitialLabels, PrivateEvolution
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.accounting import compose_epsilon
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.mechanisms import NonPrivate
from privacy.noise import NoiseSource
from tests.conformance.worlds import CLASSES, Grey, model_settings, tiny_model
from tests.rejects import rejects

KEY, OTHER_KEY = bytes(32), bytes(31) + b"1"
PRIVACY = Privacy(noise_multiplier=2.0)
LAPLACE = replace(PRIVACY, class_counts_epsilon=0.5)


@dataclass
class Case:
    """`refused`: settings of which each alone makes `check` refuse the method."""

    method: Callable[..., Method]
    settings: dict[str, Any]
    refused: dict[str, Any] = field(default_factory=dict)
    checkpoints: int = 2  # of a method that adds noise, at least

    def made(self, **changes: Any) -> Any:
        return self.method(**{**self.settings, **changes})

    @property
    def name(self) -> str:
        return self.made().name


PE: dict[str, Any] = dict(
    num_samples=12, iterations=2, lookahead=1, threshold=0, variation_degrees=[2, 1], embedding=EmbeddingName.pixels
)
DP_SGD: dict[str, Any] = dict(
    num_samples=6,
    steps=3,
    batch_size=6,
    augmult=2,
    gradient_engine=EngineName.batched,
    timestep_mixture=[Interval(low=0, high=100, weight=1.0)],
)
WARM: dict[str, Any] = dict(epsilon=0.5, num_samples=6, steps=2, batch_size=4, components=8)
GENERATOR: dict[str, Any] = dict(num_samples=6, steps=3, batch_size=6, width=2, code_size=2)
METHODS = [
    Case(PrivateEvolution, PE, {"iterations": 0, "lookahead": -1, "variation_degrees": [1], "num_samples": 2}),
    Case(DPDiffusion, DP_SGD, {"steps": 0, "batch_size": 49, "max_grad_norm": 0.0, "label_dropout": 1.0, "num_samples": 7}),
    Case(DPLoDA, {**DP_SGD, "adapter": AdapterName.loda, "rank": 2, "learning_rate": 0.01}, {"rank": 0, "learning_rate": 0.0}),
    Case(DPMoments, dict(num_samples=6, components=8), {"components": 0, "cells": 2, "num_samples": 7}, checkpoints=1),
    Case(
        DPMERF,
        {**GENERATOR, "num_features": 20, "num_generators": 2},
        {"num_features": 3, "length_scale": 0.0, "steps": 0, "num_samples": 7},
    ),
    Case(DPMEPF, {**GENERATOR, "embedding": EmbeddingName.pixels}, {"square_share": -0.1, "batch_size": 5, "num_samples": 7}),
    Case(DPDiffusion, {**DP_SGD, "warm_up": WarmUp(**WARM)}),
    Case(DPLoDA, {**DP_SGD, "adapter": AdapterName.loda, "rank": 2, "warm_up": WarmUp(**WARM)}),
    Case(PrivateEvolution, {**PE, "initial_labels": InitialLabels.matching, "warm_up": WarmUp(**WARM, degree=1)}),
    Case(
        DPClassifier,
        dict(classifier=ClassifierName.cnn, steps=3, batch_size=6, augmult=2, gradient_engine=EngineName.batched),
        {"steps": 0, "batch_size": 49, "num_samples": 6, "conditional": False, "momentum": 0.9},
    ),
    Case(
        DPTeacher,
        dict(
            num_samples=6,
            steps=3,
            batch_size=6,
            augmult=1,
            max_grad_norm=1.0,
            gradient_engine=EngineName.batched,
            warm_up=Candidates(**{**WARM, "num_samples": 12}),
        ),
        {"steps": 0, "batch_size": 49, "num_samples": 7, "confidence": 1.0, "conditional": False},
    ),
    Case(PublicOnly, dict(num_samples=6), {"num_samples": 2}),
    Case(RealData, {}),
]


def of_each(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def spends_nothing(case: Case) -> bool:
    return not case.made().spends(2.0, Grey(), PRIVACY)


def shows_images(case: Case) -> bool:
    """Without noise: not a private method."""
    return any(isinstance(spend.mechanism, NonPrivate) for spend in case.made().spends(2.0, Grey(), PRIVACY))


every_method = of_each(METHODS)
noisy_methods = of_each([case for case in METHODS if case.made().needs_noise])
sampling_methods = of_each([case for case in METHODS if not case.made().released_classifier])
private_methods = of_each([case for case in METHODS if not shows_images(case) and not case.made().released_classifier])
spending_methods = of_each([case for case in METHODS if not spends_nothing(case)])
refusals = pytest.mark.parametrize(
    ("case", "key", "value"),
    [pytest.param(case, *setting, id=f"{case.name}-{setting[0]}") for case in METHODS for setting in case.refused.items()],
)


@dataclass
class Done:
    made: Made
    plan: Plan
    ledger: Ledger
    asked: set[EmbeddingName]

    @property
    def samples(self) -> SampleSet:
        assert isinstance(self.made, SampleSet)
        return self.made


def run(
    method: Method,
    folder: Path,
    dataset: Grey | None = None,
    key: bytes = KEY,
    privacy: Privacy = PRIVACY,
    load: Callable[[], SampleSet] | None = None,
) -> Done:
    """Start it in `folder`, or go on with what was started there."""
    dataset = dataset or Grey()
    folder.mkdir(exist_ok=True)
    plan, (model, asked) = Plan.make(method, dataset, privacy), tiny_model()
    opened = Session.open(dataset, privacy, plan, NoiseSource(key), folder, load=load)
    return Done(method.run(opened.private, model, opened.run), plan, opened.ledger, asked)


def same(a: Made, b: Made) -> bool:
    if isinstance(a, ReleasedClassifier) or isinstance(b, ReleasedClassifier):
        return a.digest() == b.digest()
    pairs = [(a.images, b.images), (a.labels, b.labels)]
    if a.public_labels is not None and b.public_labels is not None:
        pairs.append((a.public_labels, b.public_labels))
    return (a.public_labels is None) == (b.public_labels is None) and all(np.array_equal(x, y) for x, y in pairs)


def test_every_method_that_users_can_choose_is_in_the_list():
    assert {case.method for case in METHODS} == set(COMPONENTS["method"].values())


# Before anything is opened


@every_method
def test_a_plan_opens_no_private_image_and_has_all_that_it_announces(case):
    method, dataset, model = case.made(), Grey(closed=True), model_settings()
    method.check(dataset, model, PRIVACY)
    plan = Plan.make(method, dataset, PRIVACY)
    assert (plan.noise_multiplier is not None) == method.needs_noise
    work, facts = method.work(dataset, model), method.training_facts(dataset, model)
    assert {"steps", "network_calls"} <= work.keys() <= {"steps", "network_calls", "backward_calls"}
    assert facts.keys() == {"trainable_parameters", "backward_flops"}
    assert all(isinstance(value, int) and value >= 0 for value in [*work.values(), *facts.values()])
    assert method.memory(dataset, model) > 0
    assert (method.released(dataset) == 0) == bool(method.released_classifier)
    assert bool(method.told) != shows_images(case)  # a sentence for the README.md of what it releases
    warmed = "warm_up" in case.settings
    assert ("Means and covariances" in method.how_made) == (warmed or isinstance(method, DPMoments))


@refusals
def test_settings_that_cannot_run_are_refused_by_their_key(case, key, value):
    method = case.made(**{key: value})
    with rejects(f"method.{key}", value):
        method.check(Grey(closed=True), model_settings(), PRIVACY)


@noisy_methods
def test_more_noise_costs_less(case):
    spent = [Plan.make(case.made(), Grey(), Privacy(noise_multiplier=sigma)).epsilon for sigma in (1.0, 2.0, 4.0)]
    assert spent == sorted(spent, reverse=True)
    assert len(set(spent)) == 3


# What is spent


@every_method
def test_the_ledger_after_a_run_is_what_the_plan_announced(case, tmp_path):
    done = run(case.made(), tmp_path)
    assert done.ledger.spends == done.plan.spends
    assert done.ledger.epsilon == compose_epsilon(done.plan.spends, done.plan.delta) == done.plan.epsilon


@private_methods
def test_class_counts_are_in_the_plan_and_in_the_ledger(case, tmp_path):
    done = run(case.made(), tmp_path, Grey(class_counts=Grey().class_counts.laplace), privacy=LAPLACE)
    by_purpose = [sorted(spends, key=lambda spend: spend.purpose) for spends in (done.ledger.spends, done.plan.spends)]
    assert by_purpose[0] == by_purpose[1]  # in whatever order they came
    assert "class_counts" in [spend.purpose for spend in done.ledger.spends]
    assert done.ledger.epsilon == pytest.approx(done.plan.epsilon, rel=1e-9)
    assert done.plan.epsilon > Plan.make(case.made(), Grey(), PRIVACY).epsilon


@every_method
def test_private_images_are_opened_only_after_an_entry_in_the_ledger(case, tmp_path):
    opened = 0

    def load() -> SampleSet:
        nonlocal opened
        opened += 1
        assert (tmp_path / "ledger.jsonl").read_text().endswith("\n")
        return Grey().train()

    run(case.made(), tmp_path, load=load)
    assert opened == (0 if spends_nothing(case) else 1)


@spending_methods
def test_without_the_ledger_there_are_no_pixels(case, tmp_path, monkeypatch):
    def refused(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Ledger, "spend", refused)
    with pytest.raises(OSError, match="disk full"):
        run(case.made(), tmp_path, load=lambda: pytest.fail("private images were opened"))


@every_method
def test_a_run_reads_private_images_only_through_the_handle(case, tmp_path):
    """The dataset that it is told of cannot open them."""
    run(case.made(), tmp_path, Grey(closed=True), load=Grey().train)


@every_method
def test_a_run_asks_for_no_embedding_but_those_that_it_names(case, tmp_path):
    assert run(case.made(), tmp_path).asked <= case.made().embeddings()


# What is made


@sampling_methods
def test_the_samples_are_as_many_as_announced_of_every_class_and_of_the_model_s_shape(case, tmp_path):
    method, samples = case.made(), run(case.made(), tmp_path).samples
    assert len(samples) == method.released(Grey())
    assert samples.num_classes == CLASSES
    assert len(set(np.bincount(samples.labels, minlength=CLASSES).tolist())) == 1
    assert samples.images.shape[1:] == Grey().shape
    SampleSet(samples.images, samples.labels, samples.num_classes, samples.public_labels)  # which checks them


@sampling_methods
def test_without_classes_there_is_one(case, tmp_path):
    if shows_images(case) or "conditional" in case.refused:
        pytest.skip("keeps the labels as they are, or learns them")
    samples = run(case.made(conditional=False), tmp_path).samples
    assert (samples.num_classes, set(samples.labels.tolist())) == (1, {0})


@every_method
def test_the_same_noise_key_makes_the_same_release(case, tmp_path):
    one, two = (run(case.made(), tmp_path / name).made for name in ("one", "two"))
    assert same(one, two)


@noisy_methods
def test_another_noise_key_makes_another_release(case, tmp_path):
    one, two = run(case.made(), tmp_path / "one"), run(case.made(), tmp_path / "two", key=OTHER_KEY)
    assert not same(one.made, two.made)


@private_methods
def test_one_private_image_more_changes_no_size_and_no_label(case, tmp_path):
    one = run(case.made(), tmp_path / "one").samples
    more = run(case.made(), tmp_path / "more", Grey(count=Grey().count + 1)).samples
    assert one.images.shape == more.images.shape
    assert np.array_equal(one.labels, more.labels)
    assert one.num_classes == more.num_classes


# Interruptions


class Killed(BaseException):
    """Nothing that a method catches."""


class Writes:
    """Counts the checkpoints, ledger lines aside, and kills the run after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count, self.kill_after, replace = 0, 0, os.replace

        def replaced(*paths: Any, **settings: Any) -> None:
            replace(*paths, **settings)
            if Path(paths[1]).name == "meter.json":  # which is written by the clock
                return
            self.count += 1
            if self.count == self.kill_after:
                raise Killed

        monkeypatch.setattr(os, "replace", replaced)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)


@every_method
def test_a_run_killed_after_any_of_its_checkpoints_goes_on_to_the_same_release_and_spends_no_more(case, tmp_path, monkeypatch):
    writes = Writes(monkeypatch)
    whole = run(case.made(), tmp_path / "whole")
    number = writes.count
    assert number >= (case.checkpoints if case.made().needs_noise else 0)
    for checkpoint in range(1, number + 1):
        folder = tmp_path / str(checkpoint)
        writes.count, writes.kill_after = 0, checkpoint
        with pytest.raises(Killed):
            run(case.made(), folder)
        writes.kill_after = 0
        resumed = run(case.made(), folder)
        assert same(resumed.made, whole.made)
        assert resumed.ledger.spends == whole.ledger.spends
        assert (folder / "ledger.jsonl").read_bytes() == (tmp_path / "whole" / "ledger.jsonl").read_bytes()


class Peeks(PublicOnly):
    """Opens private images by itself."""

    def run(self, private: PrivateDataset, model: Any, run: Run) -> SampleSet:
        run.dataset.train()
        return super().run(private, model, run)


def test_a_method_that_opens_the_dataset_itself_is_stopped(tmp_path):
    with pytest.raises(RuntimeError, match=r"private\.spend"):
        run(Peeks(num_samples=6), tmp_path)
