"""A run from settings to evaluation, without Hydra: `run(compose(["method=pe"]), folder)`, with `conf.compose`."""

from pipeline.evaluate import EvaluationError
from pipeline.running import Result, run

__all__ = ["EvaluationError", "Result", "run"]
