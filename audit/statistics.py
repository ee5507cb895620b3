"""Lower bounds on epsilon from what an adversary guessed right: statistics alone, whoever ran the mechanism.

Two designs. One run: many canaries, each in the private data or not by its own coin. A game: many runs, one canary that is
in all of half of them. Both bounds hold with the stated confidence, whatever the adversary does with what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import beta, binom

SHARES = (1 / 16, 1 / 4, 1 / 2)  # of the canaries are guessed; fixed in advance, and the bound is a union over them


@dataclass(frozen=True)
class Finding:
    lower_bound: float  # on epsilon; 0: nothing was found
    guesses: int
    correct: int
    largest: float  # the bound, had every guess been right: what this audit could have found
    false_positives: float  # of those out, the share that was guessed in
    true_positives: float  # of those in


def one_run(scores: np.ndarray, included: np.ndarray, delta: float, confidence: float) -> Finding:
    """Steinke, Nasr & Jagielski (2023), Alg. 1: the highest scores are guessed in, as many lowest out, the others not at all.

    `scores` float [m] are high for canaries that the mechanism seems to have seen; `included` bool [m] are the fair coins. The
    best of `SHARES` counts, each at an error of (1 - confidence) / len(SHARES).
    """
    order, m, confidence = np.argsort(-scores, kind="stable"), len(scores), 1 - (1 - confidence) / len(SHARES)
    findings = []
    for share in SHARES:
        half = max(1, int(share * m) // 2)
        hits = int(included[order[:half]].sum())
        correct = hits + int((~included[order[-half:]]).sum())
        bounds = [one_run_epsilon(m, 2 * half, right, delta, confidence) for right in (correct, 2 * half)]
        rates = (half - hits) / max(1, int((~included).sum())), hits / max(1, int(included.sum()))
        findings.append(Finding(bounds[0], 2 * half, correct, bounds[1], *rates))
    best = max(findings, key=lambda finding: (finding.lower_bound, finding.correct / finding.guesses))
    return replace(best, largest=max(finding.largest for finding in findings))


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """The largest epsilon that `correct` of `guesses` refute: no mechanism below it is (epsilon, delta)-DP, so guessed.

    >>> round(one_run_epsilon(1000, 100, 75, 1e-4, 0.95), 3)      # printed in App. D as 0.673
    0.673
    """

    def excess(epsilon: float) -> float:
        return one_run_p_value(canaries, guesses, correct, epsilon, delta) - (1 - confidence)

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-6)) if excess(0.0) < 0 else 0.0


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """At most how probable it is that an (epsilon, delta)-DP mechanism lets `correct` or more of `guesses` be right.

    Steinke, Nasr & Jagielski (2023), Thm. 5.2: a guess is right as seldom as randomised response is, with probability
    e^eps / (1 + e^eps); delta adds 2 m delta max_i P[correct > Binomial >= correct - i] / i.
    """
    q, i = expit(epsilon), np.arange(1, correct + 1)
    almost = np.cumsum(binom.pmf(correct - i, guesses, q)) / i
    return min(1.0, float(binom.sf(correct - 1, guesses, q) + 2 * canaries * delta * almost.max(initial=0.0)))


def game(scores_in: np.ndarray, scores_out: np.ndarray, delta: float, confidence: float) -> Finding:
    """`scores_in` float [n] of runs with the canary, `scores_out` [n] without; independent, n >= 4.

    Every other run chooses the threshold above which a run is guessed "in"; the remaining runs alone are judged by it.
    """
    chosen_in, judged_in = scores_in[::2], scores_in[1::2]
    chosen_out, judged_out = scores_out[::2], scores_out[1::2]
    thresholds = np.unique(np.concatenate([chosen_in, chosen_out]))
    hits, alarms = ((scores[:, None] >= thresholds).sum(0) for scores in (chosen_in, chosen_out))
    best = thresholds[game_epsilon(hits, len(chosen_in), alarms, len(chosen_out), delta, confidence).argmax()]
    hit, alarm = int((judged_in >= best).sum()), int((judged_out >= best).sum())
    n_in, n_out = len(judged_in), len(judged_out)
    bound = game_epsilon(hit, n_in, alarm, n_out, delta, confidence)
    largest = float(game_epsilon(n_in, n_in, 0, n_out, delta, confidence))
    return Finding(float(bound), n_in + n_out, hit + n_out - alarm, largest, alarm / n_out, hit / n_in)


def game_epsilon(
    hits: int | np.ndarray, trials_in: int, alarms: int | np.ndarray, trials_out: int, delta: float, confidence: float
) -> np.ndarray:
    """From `hits` of `trials_in` runs guessed "in" rightly and `alarms` of `trials_out` wrongly: float, >= 0, of their shape.

    (eps, delta)-DP bounds true positives: TPR <= e^eps FPR + delta, and 1 - FPR <= e^eps (1 - TPR) + delta (Kairouz, Oh &
    Viswanath 2015, Thm. 2.1). Each rate at the worse end of its one-sided interval (Clopper & Pearson 1934), each with half
    of the error.
    """
    tail, hits, alarms = (1 - confidence) / 2, np.asarray(hits), np.asarray(alarms)
    tpr = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), trials_in - hits + 1), 0.0)
    fpr = np.where(alarms < trials_out, beta.ppf(1 - tail, alarms + 1, np.maximum(trials_out - alarms, 1)), 1.0)
    ratio = np.maximum((tpr - delta) / fpr, (1 - fpr - delta) / (1 - tpr))
    return np.log(np.maximum(ratio, 1.0))
