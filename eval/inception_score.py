"""The Inception Score (Salimans et al. 2016, §4), with the class probabilities of any classifier."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.special import log_softmax


def inception_score(logits: np.ndarray, splits: int) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)) of float logits [N, classes], from 1 to `classes`: mean and spread over parts of the rows.

    `splits` parts, 1 to N; the rows come in random order. The spread has the divisor `splits`, as in Salimans et al.'s code.
    """
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    bounds = [i * len(log_p) // splits for i in range(splits + 1)]
    scores = [_score(log_p[start:end]) for start, end in pairwise(bounds)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    marginal = p.mean(0)
    log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
    return float(np.exp((p * (log_p - log_marginal)).sum(1).mean()))
