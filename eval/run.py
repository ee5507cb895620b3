"""Run the evaluators, one after the other: what is done is kept, and one that fails does not stop the others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from disk import write_json
from errors import InputError
from eval.evaluator import EvaluationContext, Evaluator
from tracking.progress import console


def run_evaluators(
    evaluators: Mapping[str, Evaluator], context: EvaluationContext, kept: Path, log: Callable[[dict[str, float]], None]
) -> tuple[dict[str, float], dict[str, Exception]]:
    """Numbers of all evaluators, and the errors of those that failed. `kept`: a folder, under internal/, of what is done.

    A second start takes from there what the same evaluator, with the same settings, said of the same samples.
    """
    numbers: dict[str, float] = {}
    errors: dict[str, Exception] = {}
    kept.mkdir(parents=True, exist_ok=True)
    digest = context.judged.digest()
    for name, evaluator in evaluators.items():
        settings: Any = OmegaConf.to_container(OmegaConf.structured(evaluator), enum_to_str=True)
        around = {
            "dataset": _settings_text(context.dataset),
            "model": _settings_text(context.model),
            "spaces": _settings_text(context.spaces),
        }
        asked = {
            "settings": settings,
            "samples": digest,
            "seed": context.seed,
            "private_figures": context.private_figures,
            **around,
        }
        before = _read(kept / f"{name}.json")
        if before.get("asked") == asked:
            numbers |= {key: math.nan if value is None else value for key, value in before["numbers"].items()}
            continue
        found: dict[str, float] = {}
        try:
            for key, value in evaluator.evaluate(context):
                found[key] = value
                log({key: value})
        except InputError as error:
            errors[name] = error
            continue
        except Exception as error:  # the others still run; the run then fails
            errors[name] = error
            console.print_exception()
            continue
        strict = {key: value if math.isfinite(value) else None for key, value in found.items()}
        write_json(kept / f"{name}.json", {"asked": asked, "numbers": strict})
        numbers |= found
    return numbers, errors


def failure(errors: Mapping[str, Exception]) -> str:
    """One line for what `run_evaluators` says of those that failed."""
    told = (
        f"{name}: {error}" if isinstance(error, InputError) else f"{name}: {type(error).__name__}: {error}"
        for name, error in errors.items()
    )
    return "; ".join(told)


def _settings_text(settings: Any) -> dict[str, str]:
    return {field.name: str(getattr(settings, field.name)) for field in fields(settings)} if is_dataclass(settings) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
