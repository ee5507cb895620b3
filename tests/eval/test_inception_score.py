"""The Inception Score: as torchmetrics has it, and at its ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.inception import InceptionScore

from eval.inception_score import inception_score


@pytest.mark.parametrize("splits", [2, 10])
def test_it_is_torchmetrics(splits):
    logits = 3 * np.random.default_rng(0).normal(size=(100, 12)).astype(np.float32)
    metric = InceptionScore(torch.nn.Identity(), splits=splits)
    metric.update(torch.from_numpy(logits).double())
    with torch.random.fork_rng():
        torch.manual_seed(7)
        mean, deviation = metric.compute()
        torch.manual_seed(7)
        order = torch.randperm(100).numpy()
    spread = float(deviation) * np.sqrt((splits - 1) / splits)  # its divisor is splits - 1
    assert inception_score(logits[order], splits) == pytest.approx((float(mean), spread), rel=1e-6)


@pytest.mark.parametrize("splits", [1, 3, 7])
def test_parts_differ_by_one_image_at_most_and_none_is_left_out(splits):
    logits = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    parts = [inception_score(part, 1)[0] for part in np.split(logits, [i * 20 // splits for i in range(1, splits)])]
    assert inception_score(logits, splits) == pytest.approx((np.mean(parts), np.std(parts)), rel=1e-9)


def test_images_of_no_class_or_all_of_one_score_one():
    assert inception_score(np.zeros((20, 5), np.float32), 2) == pytest.approx((1, 0))
    assert inception_score(np.tile(np.array([1e4, 0, 0], np.float32), (20, 1)), 2) == pytest.approx((1, 0))


def test_sure_classes_in_equal_numbers_score_their_number():
    assert inception_score(1e4 * np.tile(np.eye(5, dtype=np.float32), (4, 1)), 2) == pytest.approx((5, 0))
