"""Schedules and respacings against the golden rows and against improved-diffusion's own loop."""

from __future__ import annotations

import numpy as np
import pytest

from models.diffusion.schedules import SCHEDULES, cosine_alpha_bar, linear_alpha_bar, num_respaced, respaced_timesteps
from tests.facts import FACTS

VISITED = [name for name in FACTS if name.startswith("sched.") and ".v" in name]


def space_timesteps(num_steps: int, count: int) -> list[int]:
    """improved-diffusion's choice of `count` timesteps, which adds the stride up."""
    stride = (num_steps - 1) / (count - 1) if count > 1 else 1
    kept, at = [], 0.0
    for _ in range(count):
        kept.append(round(at))
        at += stride
    return kept


@pytest.mark.parametrize("name", VISITED)
def test_degree_v_starts_at_the_golden_timestep_and_noise(name):
    kind, num_steps, respacing = FACTS[name]["inputs"]["schedule"].split("-")
    v, expected = FACTS[name]["inputs"]["v"], FACTS[name]["computed_value"]
    timesteps, alpha_bar = respaced_timesteps(int(num_steps), respacing), SCHEDULES[kind](int(num_steps))
    assert (v - 1, len(timesteps) - v) == (expected["index"], expected["start_t"])
    assert timesteps[v - 1] == expected["t"]
    assert alpha_bar[timesteps[v - 1]] == pytest.approx(expected["alpha_bar"], rel=FACTS[name]["tolerance"])


def test_the_cosine_schedule_has_its_closed_form():
    expected = FACTS["sched.cosine4000.closed_form"]["computed_value"]
    alpha_bar = cosine_alpha_bar(4000)
    betas = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    assert betas[0] == pytest.approx(expected["beta_0"], rel=1e-10)
    for t in (0, 2000, 3998, 3999):
        assert alpha_bar[t] == pytest.approx(expected[f"abar_{t}"], rel=1e-12)
    assert np.isclose(betas, 0.999, rtol=1e-12).sum() == expected["capped_betas"]


def test_the_linear_schedule_is_the_golden_one():
    alpha_bar = linear_alpha_bar(1000)
    for t, value in FACTS["sched.linear1000"]["computed_value"].items():
        assert alpha_bar[int(t)] == pytest.approx(value, rel=FACTS["sched.linear1000"]["tolerance"])


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("num_steps", [100, 1000, 4000])
def test_a_schedule_falls_from_nearly_one_to_nearly_zero(kind, num_steps):
    alpha_bar = SCHEDULES[kind](num_steps)
    assert (alpha_bar.dtype, alpha_bar.shape) == (np.float64, (num_steps,))
    assert (np.diff(alpha_bar) < 0).all()
    assert 0.998 < alpha_bar[0] < 1
    assert 0 < alpha_bar[-1] < 1e-4


@pytest.mark.parametrize("num_steps", [1000, 4000])
@pytest.mark.parametrize(
    "respacing", ["1", "2", "10", "20", "25", "40", "50", "100", "250", "1000", "ddim10", "ddim50", "ddim250"]
)
def test_a_respacing_keeps_n_ascending_timesteps_from_0(num_steps, respacing):
    timesteps = respaced_timesteps(num_steps, respacing)
    assert (timesteps.dtype, len(timesteps)) == (np.int64, num_respaced(respacing))
    assert timesteps[0] == 0
    assert (np.diff(timesteps) > 0).all()
    assert timesteps[-1] < num_steps
    if "ddim" in respacing:
        assert len(set(np.diff(timesteps))) <= 1
    elif timesteps.size > 1:
        assert timesteps[-1] == num_steps - 1


@pytest.mark.parametrize("num_steps", [1000, 4000])
def test_even_spacings_are_those_of_improved_diffusion(num_steps):
    differ = [
        n for n in range(1, num_steps + 1) if respaced_timesteps(num_steps, str(n)).tolist() != space_timesteps(num_steps, n)
    ]
    assert differ == []


@pytest.mark.parametrize("respacing", ["", "0", "ddim0", "-5", "ten", "ddim", "10.0", "10,20", "ddimddim10", "1001", "ddim999"])
def test_a_respacing_that_does_not_exist_is_refused(respacing):
    with pytest.raises(ValueError, match="respacing="):
        respaced_timesteps(1000, respacing)
