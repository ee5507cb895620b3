"""Seeds: the same for the same purpose, different for any other; one stream for each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from models.seeds import derive, numpy_rng, sample_noise, torch_rng


def test_a_purpose_repeats_and_no_other_purpose_or_seed_shares_it():
    seeds = {derive(seed, purpose) for seed in range(20) for purpose in ("a", "b", "a/1")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(3, "a") == derive(3, "a")
    assert numpy_rng(3, "a").random() == numpy_rng(3, "a").random() != numpy_rng(3, "b").random()
    assert torch.rand(1, generator=torch_rng(3, "a")) == torch.rand(1, generator=torch_rng(3, "a"))


def test_the_noise_of_a_sample_depends_on_its_number_alone():
    every = sample_noise(0, "a", np.arange(50), (3, 8, 8))
    assert (every.dtype, tuple(every.shape)) == (torch.float32, (50, 3, 8, 8))
    for numbers in ([7], [49, 0, 7], range(20, 31)):
        assert torch.equal(sample_noise(0, "a", np.array(numbers), (3, 8, 8)), every[list(numbers)])


@pytest.mark.parametrize(("seed", "purpose"), [(1, "a"), (0, "b")])
def test_samples_seeds_and_purposes_are_independent(seed, purpose):
    first = sample_noise(0, "a", np.arange(200), (64,))
    other = sample_noise(seed, purpose, np.arange(200), (64,))
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]) < 0.04


def test_sample_noise_is_standard_normal():
    assert kstest(sample_noise(0, "a", np.arange(300), (64,)).ravel().numpy(), "norm").pvalue > 1e-3


def test_no_samples_have_no_noise():
    assert sample_noise(0, "a", np.arange(0), (1, 8, 8)).shape == (0, 1, 8, 8)


def test_deriving_and_drawing_leave_the_global_generators_alone():
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    sample_noise(0, "a", np.arange(3), (4,))
    torch_rng(0, "a")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # type: ignore[index]
