"""DDIM and SDEdit against improved-diffusion's numbers, diffusers' scheduler, and cases with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from models.diffusion.samplers import SAMPLERS, add_noise, ddim, dpm_solver, sdedit
from models.diffusion.schedules import cosine_alpha_bar, linear_alpha_bar, respaced_timesteps
from tests.facts import GOLDEN

LINEAR, COSINE = linear_alpha_bar(1000), cosine_alpha_bar(4000)
ARRAYS = {name: dict(np.load(GOLDEN / f"improved_diffusion_mini_{name}.npz")) for name in ("cond", "uncond")}
EDITS = [(name, key.removesuffix("/x_t")) for name, arrays in ARRAYS.items() for key in arrays if key.endswith("/x_t")]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(x: torch.Tensor, t: int) -> torch.Tensor:
    """A smooth function of image and timestep, far from a good prediction of the noise."""
    return torch.sin(2 * x + t / 300) + 0.3 * x.roll(1, dims=3)


@pytest.mark.parametrize(("name", "edit"), EDITS)
def test_a_variation_starts_and_walks_as_improved_diffusion_does(name, edit):
    arrays, (_, respacing, degree) = ARRAYS[name], edit.split("/")
    x_0, noise = (torch.from_numpy(arrays[key]) for key in ("x0", "noise"))
    seen: list[tuple[int, torch.Tensor]] = []

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append((t, x))
        return network(x, t)

    sdedit(predict, x_0, noise, int(degree), respaced_timesteps(4000, respacing), COSINE)
    assert [t for t, _ in seen] == arrays[f"{edit}/timesteps"].tolist()
    assert np.abs(seen[0][1].numpy() - arrays[f"{edit}/x_t"]).max() < 1e-6


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim_is_the_one_of_diffusers_where_the_timesteps_agree(steps):
    scheduler: Any = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="leading", clip_sample=True, set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    scheduler.alphas_cumprod = torch.from_numpy(LINEAR)
    x = noise = normal(4, 3, 8, 8).double()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, int(t)), t, x, eta=0.0, use_clipped_model_output=True).prev_sample
    ours = ddim(network, noise, respaced_timesteps(1000, f"ddim{steps}"), LINEAR)
    assert torch.allclose(ours, x, atol=1e-10)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_dpm_solver_is_the_one_of_diffusers_at_the_same_timesteps(steps):
    scheduler: Any = DPMSolverMultistepScheduler(num_train_timesteps=1000, final_sigmas_type="zero", euler_at_final=True)
    scheduler.alphas_cumprod = torch.from_numpy(LINEAR)
    timesteps = respaced_timesteps(1000, str(steps))
    scheduler.set_timesteps(timesteps=timesteps[::-1].tolist())
    x = noise = normal(4, 3, 8, 8).double()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, int(t)), t, x).prev_sample
    ours = dpm_solver(network, noise, timesteps, LINEAR, None)
    assert (ours - x).norm() < 1e-4 * x.norm()  # diffusers keeps its schedule in float32


def test_dpm_solver_comes_nearer_in_as_few_steps():
    noise = normal(4, 3, 8, 8).double()

    def solved(sampler: Any, steps: int) -> torch.Tensor:
        return sampler(network, noise, respaced_timesteps(1000, str(steps)), LINEAR, None)

    exact = solved(ddim, 1000)
    assert (solved(dpm_solver, 20) - exact).norm() < 0.5 * (solved(ddim, 20) - exact).norm()


def test_single_precision_is_double_precision_to_rounding():
    timesteps, noise = respaced_timesteps(1000, "50"), normal(4, 3, 8, 8)
    exact = ddim(network, noise.double(), timesteps, LINEAR)
    assert ddim(network, noise, timesteps, LINEAR).dtype == torch.float32
    assert (ddim(network, noise, timesteps, LINEAR) - exact).abs().max() < 1e-4


@pytest.mark.parametrize("alpha_bar", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("respacing", ["1", "7", "100", "ddim10"])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_the_exact_predictor_of_one_image_leads_to_that_image(sampler, alpha_bar, respacing):
    image = normal(1, 3, 8, 8).clamp(-1, 1).double()

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        return (x - alpha_bar[t] ** 0.5 * image) / (1 - alpha_bar[t]) ** 0.5

    out = sampler(predict, normal(5, 3, 8, 8, seed=1).double(), respaced_timesteps(len(alpha_bar), respacing), alpha_bar)
    assert torch.allclose(out, image.expand_as(out), atol=1e-9)


def test_samples_stay_inside_the_image_range_whatever_the_network_says():
    out = ddim(lambda x, t: 50 * normal(*x.shape, seed=t), normal(4, 1, 8, 8), respaced_timesteps(1000, "20"), LINEAR)
    assert out.abs().max() <= 1


@pytest.mark.parametrize("degree", [1, 4, 10])
def test_a_variation_of_degree_v_is_ddim_from_the_noised_image_in_v_calls(degree):
    timesteps, image, noise = respaced_timesteps(1000, "10"), normal(4, 1, 8, 8).clamp(-1, 1), normal(4, 1, 8, 8, seed=1)
    calls: list[int] = []

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        calls.append(t)
        return network(x, t)

    out = sdedit(predict, image, noise, degree, timesteps, LINEAR)
    assert calls == timesteps[:degree][::-1].tolist()
    start = add_noise(image, noise, LINEAR[timesteps[degree - 1]])
    assert torch.equal(out, ddim(network, start, timesteps[:degree], LINEAR))


def test_noised_unit_images_keep_unit_variance():
    x_t = add_noise(normal(1000, 1, 8, 8), normal(1000, 1, 8, 8, seed=1), 0.3)
    assert x_t.var().item() == pytest.approx(1.0, rel=0.02)
