"""How many DP-SGD steps a time is enough for, told before the first of them by a timing on black images.

A clock that stopped the training itself would be driven by the sizes of secret batches, and the number of steps, which is
published, would tell them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from dp_finetune.training import Trainer, poisson_batch
from tracking import ranks

PASSES, ENDS = 5, 3  # fixed numbers: processes that sum together time together


def steps_that_fit(seconds: float, rehearsal: Trainer, shape: tuple[int, int, int], size: int, expected_batch: float) -> int:
    """Possibly 0. `size`: of the private dataset, whose images are uint8 `shape`.

    `rehearsal` trains a copy of the network with noise of its own, and is used up. Of the run's streams the views of step 0
    alone are drawn, which no step takes.
    """
    examples = rehearsal.engine.examples_per_pass
    images, rows = np.zeros((examples, *shape), np.uint8), np.arange(examples)
    labels = np.full(examples, rehearsal.model_labels[0])
    rehearsal.network.eval()

    def one_pass() -> None:
        rehearsal.add(images, labels, rows, step=0)

    def the_rest() -> None:
        poisson_batch(size, rehearsal.mechanism.sample_rate, rehearsal.noise, "timing")
        rehearsal.finish_step("timing")

    a_pass = _seconds(one_pass, PASSES, rehearsal.device)
    passes = math.ceil(expected_batch / ranks.world() / examples)
    return int(seconds / (passes * a_pass + _seconds(the_rest, ENDS, rehearsal.device)))


def _seconds(work: Callable[[], None], times: int, device: torch.device) -> float:
    """Of one call, the mean after one that warms up."""
    work()
    _wait(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - started) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
