from __future__ import annotations

import pytest

from privacy.config import Privacy


@pytest.mark.parametrize(
    ("num_private", "delta"), [(1437, 3.4e-4), (14, 3.5e-2), (50_000, 1.0e-5), (60_000, 8.3e-6), (302_436, 1.6e-6), (1, 0.5)]
)
def test_delta_is_half_of_one_over_n_unless_it_is_stated(num_private, delta):
    assert Privacy().delta_for(num_private) == delta <= 1 / (2 * num_private)
    assert Privacy(delta=1e-5).delta_for(num_private) == 1e-5


def test_a_smaller_dataset_changes_delta_and_sample_rate():
    from tests.command import typed

    one = typed("method=dp_diffusion", "dataset.fraction=0.5")
    assert one.dataset.num_private == 718
    assert one.delta == 6.9e-4
    (spend,) = one.method.spends(1.0, one.dataset, one.privacy)
    assert spend.mechanism.sample_rate == 256 / 718  # type: ignore[attr-defined]
    two = typed("method=dp_diffusion", "method.batch_size=null", "method.sample_rate=0.25", "dataset.fraction=0.01")
    (spend,) = two.method.spends(1.0, two.dataset, two.privacy)
    assert spend.mechanism.sample_rate == 0.25  # type: ignore[attr-defined]
    assert two.method.work(two.dataset, two.model)["backward_calls"] == round(100 * 0.25 * 14 * 4)
