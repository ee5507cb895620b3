"""The Gaussian mechanism, exactly: epsilon from the noise multiplier and back.

Balle & Wang (2018), Thm. 8: noise of standard deviation sigma on a query of L2 sensitivity 1 is (eps, delta)-DP iff
delta >= Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) with mu = 1/sigma. T adaptive rounds are one round of
mu = sqrt(T)/sigma (Dong, Roth & Su 2022, Cor. 3.3).
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr


def gaussian_log_delta(epsilon: float, mu: float) -> float:
    """log of the smallest delta, for epsilon >= 0 and mu > 0; in log space, so that delta = 1e-300 is still exact."""
    upper = float(log_ndtr(mu / 2 - epsilon / mu))
    lower = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    gap = lower - upper
    return upper + math.log(-math.expm1(gap)) if gap < 0 else -math.inf


def gaussian_epsilon(noise_multiplier: float, delta: float, rounds: int = 1) -> float:
    """The smallest epsilon of `rounds` Gaussian mechanisms.

    >>> round(gaussian_epsilon(2 * 2**0.5, 1e-5, rounds=5), 6)    # PE, Table 1, last column
    3.341409
    """
    mu, target = math.sqrt(rounds) / noise_multiplier, math.log(delta)
    if gaussian_log_delta(0.0, mu) <= target:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(-2 * target) + 1e-12  # Cramér-Chernoff: delta(high) is below the target
    return float(brentq(lambda eps: gaussian_log_delta(eps, mu) - target, 0.0, high, xtol=1e-13, rtol=1e-14))


def gaussian_noise_multiplier(epsilon: float, delta: float, rounds: int = 1) -> float:
    """The smallest noise multiplier for which `rounds` Gaussian mechanisms are (epsilon, delta)-DP.

    >>> round(gaussian_noise_multiplier(10.0, 3e-6, rounds=7), 6)    # PE, Camelyon17, printed as 1.381
    1.380567
    """
    target = math.log(delta)
    low, high = 1e-9, 1.0
    while gaussian_log_delta(epsilon, high) < target:
        high *= 2
    log_mu = brentq(lambda u: gaussian_log_delta(epsilon, math.exp(u)) - target, math.log(low), math.log(high), xtol=1e-14)
    return math.sqrt(rounds) / math.exp(float(log_mu))
