"""Deterministic samplers as functions of `(predict_noise, x, …)`.

`predict_noise(x, t)` maps float [N, C, H, W] and an original timestep (int) to the predicted noise, same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

PredictNoise = Callable[[torch.Tensor, int], torch.Tensor]
Sampler = Callable[[PredictNoise, torch.Tensor, np.ndarray, np.ndarray, float | None], torch.Tensor]


def add_noise(x_0: torch.Tensor, noise: torch.Tensor, alpha_bar_t: float) -> torch.Tensor:
    """x_t of the forward process (Ho et al. 2020, eq. 4)."""
    return alpha_bar_t**0.5 * x_0 + (1 - alpha_bar_t) ** 0.5 * noise


def ddim(
    predict_noise: PredictNoise, x: torch.Tensor, timesteps: np.ndarray, alpha_bar: np.ndarray, bound: float | None = 1.0
) -> torch.Tensor:
    """DDIM (Song et al. 2021, eq. 12; eta = 0) down the kept `timesteps` (ascending).

    `alpha_bar` is the full schedule; the prediction of x_0 is clipped to ±`bound`. Returns x_0, float [N, C, H, W]; one network
    call for each timestep.
    """
    for i in reversed(range(len(timesteps))):
        a_t = float(alpha_bar[timesteps[i]])
        a_prev = float(alpha_bar[timesteps[i - 1]]) if i > 0 else 1.0
        eps = predict_noise(x, int(timesteps[i]))
        x_0 = (x - (1 - a_t) ** 0.5 * eps) / a_t**0.5
        if bound is not None:
            x_0 = x_0.clamp(-bound, bound)
            eps = (x - a_t**0.5 * x_0) / (1 - a_t) ** 0.5
        x = a_prev**0.5 * x_0 + (1 - a_prev) ** 0.5 * eps
    return x


def dpm_solver(
    predict_noise: PredictNoise, x: torch.Tensor, timesteps: np.ndarray, alpha_bar: np.ndarray, bound: float | None = 1.0
) -> torch.Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Alg. 2), by the same arguments as `ddim`: of second order but for the first step and the
    last, so that fewer timesteps do. One network call for each."""
    before, h_before = None, 0.0
    for i in reversed(range(len(timesteps))):
        a_t = float(alpha_bar[timesteps[i]])
        x_0 = (x - (1 - a_t) ** 0.5 * predict_noise(x, int(timesteps[i]))) / a_t**0.5
        x_0 = x_0 if bound is None else x_0.clamp(-bound, bound)
        if i == 0:
            return x_0
        a_prev = float(alpha_bar[timesteps[i - 1]])
        h = 0.5 * math.log(a_prev * (1 - a_t) / ((1 - a_prev) * a_t))  # of the log signal-to-noise ratio
        extrapolated = x_0 if before is None else x_0 + (x_0 - before) * (h / (2 * h_before))
        x = ((1 - a_prev) / (1 - a_t)) ** 0.5 * x - a_prev**0.5 * math.expm1(-h) * extrapolated
        before, h_before = x_0, h
    return x


SAMPLERS = {"ddim": ddim, "dpm_solver": dpm_solver}


def sdedit(
    predict_noise: PredictNoise,
    x_0: torch.Tensor,
    noise: torch.Tensor,
    degree: int,
    timesteps: np.ndarray,
    alpha_bar: np.ndarray,
    bound: float | None = 1.0,
    sampler: Sampler = ddim,
) -> torch.Tensor:
    """SDEdit (Meng et al. 2022) as PE's VARIATION: noise to respaced index v - 1, then the sampler v - 1 … 0: v network calls.

    `degree` v is 1 … N for N kept timesteps; N forgets nearly everything, 1 changes nearly nothing.
    """
    x_t = add_noise(x_0, noise, float(alpha_bar[timesteps[degree - 1]]))
    return sampler(predict_noise, x_t, timesteps[:degree], alpha_bar, bound)
