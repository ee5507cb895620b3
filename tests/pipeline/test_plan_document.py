"""A plan of parts that tell nothing of what they cost: null, and nothing breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from eval.config import Evaluation
from eval.evaluator import EvaluationContext, Evaluator
from method import Method
from models.public.settings import Model
from pipeline.plan import Plan
from pipeline.plan_document import plan_document
from privacy.mechanisms import SampledGaussian, Spend
from tests.command import typed


@dataclass(kw_only=True)
class Brightness(Evaluator):
    """A first evaluator: `evaluate`, and nothing else."""

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        yield "brightness/mean", float(context.samples.images.mean())


@dataclass(kw_only=True)
class OwnEvaluation(Evaluation):
    brightness: Brightness = field(default_factory=Brightness)


@dataclass(kw_only=True)
class Silent(Method):
    """A first method: what it spends, and a run that no plan starts."""

    name: str = "silent"

    def spends(self, noise_multiplier, dataset, privacy) -> list[Spend]:
        return [Spend("silent", SampledGaussian(noise_multiplier, 0.1), 10)]


@dataclass(kw_only=True)
class Unknown(Model):
    """A first model, of images of 8×8 pixels."""

    name: str = "unknown"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (8, 8, 1)


def test_an_evaluator_without_a_cost_plans_as_null():
    config = replace(typed("eval=none"), eval=OwnEvaluation(**vars(typed("eval=none").eval)))
    document = plan_document(Plan.of(config), config)
    assert document["evaluation"] == {"brightness": {"seconds": None, "memory_gib": None}}
    assert document["work"]["peak_memory_gib"] is None
    assert document["work"]["flops"] > 0
    json.dumps(document, allow_nan=False)


def test_a_method_and_a_model_that_tell_nothing_plan_as_null_and_epsilon_is_known():
    config = replace(typed("eval=none"), method=Silent(), model=Unknown())
    document = plan_document(Plan.of(config), config)
    assert document["model"] == {"name": "unknown", "parameters": None, "trainable_parameters": 0}
    assert {document["work"][key] for key in ("steps", "network_calls", "flops", "seconds", "peak_memory_gib")} == {None}
    assert 0 < document["privacy"]["epsilon"] < 100
    json.dumps(document, allow_nan=False)


def test_a_known_method_on_an_unknown_model_knows_its_steps_alone():
    config = replace(typed("eval=none", "method=pe"), model=Unknown())
    work = plan_document(Plan.of(config), config)["work"]
    assert work["steps"] == len(config.method.variation_degrees)  # type: ignore[attr-defined]
    assert work["network_calls"] is work["flops"] is work["seconds"] is work["peak_memory_gib"] is None
