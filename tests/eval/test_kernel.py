"""The kernel distance: as torchmetrics has it, where its value is known, and an error that is the error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from eval.kernel import kernel_distance, squared_mmd, subset_distances

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(120, 32)).astype(np.float32), RNG.normal(0.3, 1.2, (90, 32)).astype(np.float32)


class Shuffled:
    """Subsets as torchmetrics draws them, of torch's global generator."""

    def choice(self, a: int, size: int, replace: bool) -> np.ndarray:
        return torch.randperm(a)[:size].numpy()


def test_subsets_give_torchmetrics_mean_and_deviation():
    metric = KernelInceptionDistance(torch.nn.Identity(), subsets=12, subset_size=40)
    for features, real in ((A, True), (B, False)):
        metric.update(torch.from_numpy(features).double(), real=real)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        mean, deviation = metric.compute()
        torch.manual_seed(7)
        found = subset_distances(A, B, subsets=12, subset_size=40, rng=Shuffled())
    assert found.mean() == pytest.approx(float(mean), rel=1e-6)
    assert found.std() == pytest.approx(float(deviation), rel=1e-6)


def test_of_large_sets_in_one_dimension_it_is_a_distance_of_moments():
    """(xy + 1)³ compares third, second and first moments, with weights 1, 3, 3."""
    a, b = RNG.normal(0, 1, (3000, 1)), RNG.normal(0.5, 1, (3000, 1))
    expected = (0.5**3 + 3 * 0.5) ** 2 + 3 * (0.5**2) ** 2 + 3 * 0.5**2
    distance, error = kernel_distance(a, b, subsets=50, subset_size=500, rng=np.random.default_rng(0))
    assert abs(distance - expected) < 4 * error
    assert error < 0.2 * expected


def test_between_sets_of_one_distribution_it_is_zero_on_average():
    found = [squared_mmd(z[:20], z[20:]) for z in RNG.normal(size=(400, 50, 3))]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0


@pytest.mark.parametrize(("subsets", "subset_size"), [(30, 30), (30, 1000), (5, 30)])
def test_the_standard_error_is_the_deviation_over_new_images_and_new_subsets(subsets, subset_size):
    rng = np.random.default_rng(1)
    found = [
        kernel_distance(
            rng.normal(size=(120, 2)), rng.normal(0.8, 1, (120, 2)), subsets=subsets, subset_size=subset_size, rng=rng
        )
        for _ in range(150)
    ]
    distances, errors = np.array(found).T
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(distances.std(), rel=0.25)


def test_it_does_not_depend_on_the_order_of_images():
    expected = squared_mmd(A, B)
    assert squared_mmd(A[::-1], B[RNG.permutation(len(B))]) == pytest.approx(expected, rel=1e-9)
    assert squared_mmd(B, A) == pytest.approx(expected, rel=1e-9)
