"""What every evaluator keeps: an evaluator is put through all of it by a line in EVALUATORS."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from data.samples import SampleSet
from eval.config import Evaluation
from eval.discriminator import Discriminator
from eval.distances import Frechet, InceptionScore, Kernel, Manifold
from eval.downstream import Downstream
from eval.evaluator import EvaluationContext, Evaluator, Reference
from eval.intrinsic import IntrinsicDimension
from eval.membership import Membership
from eval.pictures import Pictures
from models.classifiers.networks import ClassifierName
from models.features.spaces import EmbeddingName, Embeddings, Spaces
from tests.conformance.worlds import Grey, grey, model_settings
from tests.rejects import rejects

CPU = torch.device("cpu")


@dataclass
class Case:
    """`names`: what its numbers' names start with. `refused`: settings of which each alone makes `check` refuse it."""

    name: str  # under eval.
    evaluator: Evaluator
    names: tuple[str, ...]
    refused: dict[str, Any] = field(default_factory=dict)


SMALL: dict[str, Any] = dict(classifier=ClassifierName.cnn, steps=2, batch_size=8)
EVALUATORS = [
    Case("frechet", Frechet(per_class=True), ("frechet/",), {"embedding": EmbeddingName.public_features}),
    Case("kernel", Kernel(subsets=4, subset_size=6), ("kernel/",), {"subsets": 1, "subset_size": 1}),
    Case("manifold", Manifold(k=2), ("precision/", "recall/", "density/", "coverage/"), {"k": 0}),
    Case("inception_score", InceptionScore(splits=2), ("class_score/",), {"splits": 0, "embedding": EmbeddingName.pixels}),
    Case("downstream", Downstream(**SMALL), ("cnn/",), {"seeds": 0, "steps": 0, "holdout": 1.0}),
    Case("discriminator", Discriminator(**SMALL), ("discriminator/",), {"holdout": 0.0, "steps": 0}),
    Case("membership", Membership(), ("membership/",)),
    Case("intrinsic_dimension", IntrinsicDimension(degrees=[1.0], variations=3), ("intrinsic_dimension/",), {"explained": 0.0}),
    Case("pictures", Pictures(rows=3, neighbours=2), (), {"rows": 0, "neighbours": 0}),
]
for case in EVALUATORS:
    case.evaluator.enabled = True

every_evaluator = pytest.mark.parametrize("case", EVALUATORS, ids=[case.name for case in EVALUATORS])
refusals = pytest.mark.parametrize(
    ("case", "key", "value"),
    [pytest.param(case, *setting, id=f"{case.name}-{setting[0]}") for case in EVALUATORS for setting in case.refused.items()],
)


def world(**changes: Any) -> Grey:
    return Grey(**{**dict(count=36, held_out=24, public_count=30), **changes})


def context(figures: Path, seed: int = 0, samples: SampleSet | None = None, **changes: Any) -> EvaluationContext:
    figures.mkdir(exist_ok=True)
    judged = samples if samples is not None else grey(30, first=3000)
    settings = model_settings()
    spaces = spaces_of(settings)
    return EvaluationContext(judged, world(**changes), embeddings(), CPU, seed, figures, model=settings, spaces=spaces)


def spaces_of(settings: Any) -> Spaces:
    """Where samples of the model are judged."""
    return Evaluation().spaces(world(), settings)


@functools.cache
def embeddings() -> Embeddings:
    return spaces_of(model_settings()).on(CPU)


def test_every_evaluator_that_users_can_choose_is_in_the_list():
    ours = {f.name: getattr(Evaluation(), f.name) for f in dataclasses.fields(Evaluation)}
    expected = {name: type(part) for name, part in ours.items() if isinstance(part, Evaluator)}
    assert {case.name: type(case.evaluator) for case in EVALUATORS} == expected


@every_evaluator
def test_checks_and_costs_open_no_private_image(case, monkeypatch):
    dataset, settings = world(closed=True), model_settings()
    monkeypatch.setattr(Grey, "test", lambda self: pytest.fail("test images were opened"))
    spaces = spaces_of(settings)
    case.evaluator.check(f"eval.{case.name}", dataset, settings, spaces)
    case.evaluator.check_sizes(f"eval.{case.name}", dataset, 30)
    case.evaluator.prepare(dataset)
    cost = case.evaluator.cost(dataset, settings, spaces, 30)
    assert cost.flops >= 0
    assert math.isfinite(cost.flops)
    assert cost.bytes >= 0
    assert case.evaluator.embeddings() <= spaces.names


@refusals
def test_settings_that_cannot_be_used_are_refused_by_their_key(case, key, value):
    settings: Any = model_settings()
    if (key, value) == ("embedding", EmbeddingName.public_features):
        settings = dataclasses.replace(settings, features=None)
    changed = dataclasses.replace(case.evaluator, **{key: value})
    with rejects(f"eval.{case.name}.{key}", value):
        changed.check(f"eval.{case.name}", world(closed=True), settings, spaces_of(settings))


@every_evaluator
def test_numbers_are_finite_and_carry_the_evaluator_s_own_names(case, tmp_path):
    pairs = list(case.evaluator.evaluate(context(tmp_path)))
    names = [name for name, _ in pairs]
    assert bool(names) == bool(case.names)
    assert len(set(names)) == len(names)
    for name, value in pairs:
        assert name.startswith(case.names)
        assert isinstance(value, float)
        assert math.isfinite(value)


@every_evaluator
def test_the_same_seed_measures_the_same_numbers(case, tmp_path):
    one, two = (list(case.evaluator.evaluate(context(tmp_path / name))) for name in ("one", "two"))
    assert one == two


@every_evaluator
def test_samples_and_the_model_are_as_they_were(case, tmp_path):
    judged = context(tmp_path)
    samples, before = judged.samples, judged.samples.digest()
    weights = {name: value.clone() for name, value in model_state().items()}
    list(case.evaluator.evaluate(judged))
    assert judged.samples is samples
    assert samples.digest() == before
    assert all(torch.equal(value, weights[name]) for name, value in model_state().items())


def model_state() -> dict[str, torch.Tensor]:
    features = embeddings()[EmbeddingName.public_features]
    assert isinstance(features, torch.nn.Module)
    return features.state_dict()


@every_evaluator
def test_an_evaluator_that_needs_no_test_images_does_without(case, tmp_path):
    if case.evaluator.needs_test:
        pytest.skip("needs them")
    there, none = context(tmp_path / "there"), context(tmp_path / "none", held_out=0)
    assert list(case.evaluator.evaluate(there)) == list(case.evaluator.evaluate(none))


@every_evaluator
def test_only_an_evaluator_that_reads_test_images_changes_with_them(case, tmp_path):
    if hasattr(case.evaluator, "reference"):
        assert not dataclasses.replace(case.evaluator, reference=Reference.train).needs_test
        assert dataclasses.replace(case.evaluator, reference=Reference.test).needs_test
    one, other = context(tmp_path / "one"), context(tmp_path / "other")
    other.__dict__["test"] = grey(24, first=9000)
    same = list(case.evaluator.evaluate(one)) == list(case.evaluator.evaluate(other))
    assert same or case.evaluator.needs_test


@every_evaluator
def test_samples_of_one_class_are_judged_too(case, tmp_path):
    ours = grey(30, first=3000)
    alone = SampleSet(ours.images, 0 * ours.labels, 1)
    assert all(math.isfinite(value) for _, value in case.evaluator.evaluate(context(tmp_path, samples=alone)))
