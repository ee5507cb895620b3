"""The classifier that judges samples: trained on nothing but them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.samples import SampleSet
from eval.downstream import accuracy, mean_and_spread, train_wrn

CPU = torch.device("cpu")


def samples(seed: int = 0, channels: int = 1) -> SampleSet:
    rng = np.random.default_rng(seed)
    return SampleSet(rng.integers(0, 256, (20, 8, 8, channels)).astype(np.uint8), np.arange(20) % 4, 4)


def train(data: SampleSet, seed: int = 0, steps: int = 2) -> torch.nn.Module:
    return train_wrn(data, seed=seed, steps=steps, batch_size=4, device=CPU, advance=lambda count: None)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_nothing_but_samples_and_seed_decides_the_weights():
    torch.manual_seed(1)
    network = train(samples())
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(network, train(samples()))
    assert not same(network, train(samples(), seed=1))
    assert not same(network, train(samples(seed=1)))


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    train(samples(), steps=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_is_one_of_the_samples_kind_and_reports_every_step():
    done: list[int] = []
    network = train_wrn(samples(channels=3), seed=0, steps=1, batch_size=4, device=CPU, advance=done.append)
    assert sum(done) == 1
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_accuracy_is_the_share_of_right_answers(batch_size):
    class Level(torch.nn.Module):
        """Answers with the class whose grey level the image has."""

        def forward(self, x):
            return -(x.mean((1, 2, 3))[:, None] - torch.linspace(-1, 1, 4)).abs()

    labels = np.arange(20) % 4
    grey = np.array([0, 85, 170, 255], np.uint8)[np.where(np.arange(20) < 15, labels, (labels + 1) % 4)]
    test = SampleSet(np.broadcast_to(grey[:, None, None, None], (20, 8, 8, 1)).copy(), labels, 4)
    assert accuracy(Level(), test, CPU, batch_size) == 0.75


def test_accuracy_does_not_depend_on_the_batch_or_the_training_mode():
    network = train(samples())
    scores = {accuracy(network.train(mode), samples(), CPU, batch_size) for mode in (True, False) for batch_size in (3, 512)}
    assert len(scores) == 1


@pytest.mark.parametrize(("values", "mean", "spread"), [([0.5], 0.5, 0.0), ([1.0, 3.0], 2.0, 2**0.5)])
def test_mean_and_spread(values, mean, spread):
    assert mean_and_spread(values) == pytest.approx((mean, spread))
