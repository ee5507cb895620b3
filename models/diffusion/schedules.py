"""Noise schedules and respacings of discrete-time diffusion.

`alpha_bar[t]` is the product of `1 - beta` up to and including step t: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps.
"""

from __future__ import annotations

import itertools

import numpy as np


def linear_alpha_bar(num_steps: int = 1000) -> np.ndarray:
    """float64 [T]; betas from 1e-4 to 0.02, rescaled for other T (Ho et al. 2020; Nichol & Dhariwal 2021)."""
    scale = 1000 / num_steps
    return np.cumprod(1 - np.linspace(scale * 1e-4, scale * 0.02, num_steps))


def cosine_alpha_bar(num_steps: int = 4000) -> np.ndarray:
    """float64 [T]; Nichol & Dhariwal (2021), eq. 17, with betas clipped at 0.999."""
    u = np.arange(num_steps + 1) / num_steps
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


SCHEDULES = {"linear": linear_alpha_bar, "cosine": cosine_alpha_bar}


def num_respaced(respacing: str) -> int:
    """How many steps a respacing keeps: 100 for "100" and for "ddim100"; ValueError for anything else."""
    digits = respacing.removeprefix("ddim")
    if not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"respacing={respacing!r} is not 'N' or 'ddimN' with N >= 1")
    return int(digits)


def respaced_timesteps(num_steps: int, respacing: str) -> np.ndarray:
    """The kept timesteps, ascending, int64 [N], as improved-diffusion chooses them.

    "ddimN" keeps every (T/N)-th step from 0 and needs an integer stride that gives exactly N; "N" spreads N steps evenly
    from 0 to T - 1. Raises ValueError where T has no such spacing.
    """
    n = num_respaced(respacing)
    if n > num_steps:
        raise ValueError(f"respacing={respacing!r} keeps more than the schedule's {num_steps} steps")
    if respacing.startswith("ddim"):
        for every in range(1, num_steps + 1):
            if len(range(0, num_steps, every)) == n:
                return np.arange(0, num_steps, every)
        raise ValueError(f"respacing={respacing!r}: no integer stride keeps exactly {n} of {num_steps} steps")
    stride = (num_steps - 1) / (n - 1) if n > 1 else 1.0
    running = itertools.accumulate(itertools.repeat(stride, n - 1), initial=0.0)  # a sum, as there: rounding depends on it
    return np.array([round(t) for t in running], dtype=np.int64)
