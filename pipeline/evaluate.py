"""Diagnostics on real data: after the release, into internal/, never fed back."""

from __future__ import annotations

import functools
import json
import time
import traceback
from dataclasses import replace
from typing import Any

import torch

from disk import write_json
from eval.evaluator import EvaluationContext
from eval.run import failure, run_evaluators
from method import Made
from models.public.settings import PublicModel
from pipeline.config import Config
from pipeline.contents import GRID, open_contents
from store.run_dir import RunDir
from tracking.environment import environment
from tracking.memory import peak_gib
from tracking.meter import MEMORY
from tracking.tracker import Tracker


class EvaluationError(RuntimeError):
    """Evaluators failed; the release stands, and the same command evaluates again."""


def evaluation_context(config: Config, made: Made, model: PublicModel, device: torch.device, folder: RunDir) -> EvaluationContext:
    """What evaluators are given."""
    same = config.spaces == config.model.spaces  # then the model's own, which the method may have in memory
    return EvaluationContext(
        made,
        config.dataset,
        model.embeddings if same else config.spaces.on(device),
        device,
        config.seed,
        figures=folder.figures,
        private_figures=config.eval.private_figures,
        checkpoints=folder.checkpoints,
        model=config.model,
        spaces=config.spaces,
        cache=config.eval.cache_folder,
    )


def evaluate(config: Config, model: PublicModel, device: torch.device, folder: RunDir, tracker: Tracker) -> dict[str, Any]:
    """The numbers of every evaluator, written last of all to internal/metrics.json. EvaluationError where one failed."""
    output, document = folder.output, folder.certificate
    assert output is not None
    assert document is not None
    evaluation = config.judging
    if selected := document.get("selected"):
        chosen = replace(evaluation.downstream, **selected, choose_from=[], choose_steps=[])
        evaluation = replace(evaluation, downstream=chosen)
    budget = {"privacy/epsilon": document["epsilon"], "privacy/delta": document["delta"]}
    tracker.summary({**budget, "method": config.method.name, "dataset": config.dataset.name})
    metrics: dict[str, Any] = {**budget, **json.loads(folder.cost.read_text())}
    started = time.time()
    context = evaluation_context(config, open_contents(output, config.dataset), model, device, folder)
    log = functools.partial(tracker.log, internal=True)
    numbers, errors = run_evaluators(evaluation.evaluators, context, folder.internal / "evaluation", log)
    metrics |= {**numbers, "time/evaluation_seconds": round(time.time() - started, 1)}
    metrics[MEMORY] = max(metrics.get(MEMORY, 0), round(peak_gib(), 2))
    if output == folder.release and (picture := output / GRID).exists():
        tracker.image("grid", picture)
    if errors:
        failed = EvaluationError(
            f"{len(errors)} evaluator(s) failed; the release stands, run again to evaluate: {failure(errors)}"
        )
        for error in errors.values():
            failed.add_note("".join(traceback.format_exception(error)))
        raise failed
    before = json.loads(folder.making.made_with.read_text()) if folder.making.made_with.exists() else {}
    write_json(folder.made_with, {**before, "evaluation": environment(device)})
    write_json(folder.metrics, metrics)
    return metrics
