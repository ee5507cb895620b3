"""What `plan_only=true` prints: what a run would cost in privacy, time and memory, before any image is opened."""

from __future__ import annotations

import math
import resource
import sys
from typing import Any

from eval.evaluator import Cost
from models.flops import flops_per_second
from pipeline.config import Config
from pipeline.plan import Plan, network_work

LIBRARIES = 300 * 2**20  # bytes of those that a plan does not load: Opacus, scikit-learn, matplotlib …
DIFFUSERS = 170 * 2**20  # and of diffusers with what it brings, which a plan loads where it has to build a network


def plan_document(plan: Plan, config: Config) -> dict[str, Any]:
    """What `plan_only=true` prints, ready for JSON: a number that nobody knows is None."""
    facts = plan.describe(config.method, config.dataset, config.privacy)
    return {**facts, **costs(config), "hints": hints(plan, config)}


def costs(config: Config) -> dict[str, Any]:
    """`model`, `work` and `evaluation` of `plan_document`. Seconds are right to a factor of about two, on this machine."""
    document = network_work(config.method, config.dataset, config.model)
    samples = config.method.released(config.dataset)
    cost_of = {
        name: one.cost(config.dataset, config.model, config.spaces, samples) for name, one in config.judging.evaluators.items()
    }
    rate = flops_per_second(config.torch_device)
    document["work"] |= {
        "seconds": _seconds(document["work"]["flops"], rate),
        "peak_memory_gib": _peak_memory(config, cost_of, document["model"]["parameters"] or 0),
        "images_on_disk_gib": _rounded(config.dataset.file_bytes / 2**30),
    }
    document["evaluation"] = {
        name: {
            "seconds": None if cost is None else _seconds(cost.flops, rate),
            "memory_gib": None if cost is None else _rounded(cost.bytes / 2**30),
        }
        for name, cost in cost_of.items()
    }
    return document


def hints(plan: Plan, config: Config) -> list[str]:
    """`hints` of `plan_document`: what is known beforehand of how good a release will be, and of what the settings do."""
    return [*config.notes(), *plan.hints(config.method, config.dataset, config.model, config.privacy)]


def _peak_memory(config: Config, cost_of: dict[str, Cost | None], parameters: int) -> float | None:
    """GiB of main memory that a run takes at most: the program, images as uint8, and decoding, method or evaluation.

    The model's weights stay while its samples are judged. None where the method, the model or an evaluator does not tell.
    """
    known, method = [cost for cost in cost_of.values() if cost is not None], config.method.memory(config.dataset, config.model)
    if len(known) < len(cost_of) or method is None:
        return None
    program = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + LIBRARIES
    program += 0 if "diffusers" in sys.modules else DIFFUSERS
    judged = 4 * parameters + sum(cost.bytes for cost in known)
    judged += config.method.released(config.dataset) * math.prod(config.dataset.shape)
    judged += sum(config.spaces.memory(name, config.dataset.shape) for name in config.judging.embeddings())
    working = max(method, judged)
    largest = max(1.1 * working, config.dataset.decoding_bytes)
    return round((program + 2 * config.dataset.bytes + largest) / 2**30, 2)


def _seconds(flops: float | None, rate: float) -> float | None:
    return None if flops is None or math.isnan(flops) else _rounded(flops / rate)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
