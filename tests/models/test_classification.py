"""One trainer of classifiers: what a recipe says is what happens, and nothing else decides the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from data.augmentations import Augmentation
from data.images import random_shift, to_network
from data.samples import SampleSet
from models.classifiers.networks import ClassifierName, Norm, WideResNet
from models.classifiers.training import LearningRateSchedule, Recipe, accuracy, logits, train
from models.seeds import derive, torch_rng
from tests.rejects import rejects

CPU = torch.device("cpu")
SMALL = Recipe(classifier=ClassifierName.cnn, steps=3, batch_size=4, schedule=LearningRateSchedule.constant)


def samples(seed: int = 0, channels: int = 1, classes: int = 4) -> SampleSet:
    rng = np.random.default_rng(seed)
    return SampleSet(rng.integers(0, 256, (20, 8, 8, channels)).astype(np.uint8), np.arange(20) % classes, classes)


def fit(data: SampleSet, recipe: Recipe = SMALL, seed: int = 0, **settings: Any) -> Any:
    return train(data, recipe, seed=seed, device=CPU, advance=lambda count: None, **settings)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_default_recipe_is_the_plain_loop_bit_by_bit():
    """What stored references were measured with."""
    data, rng = samples(), torch_rng(5, "eval/wrn")
    with torch.random.fork_rng():
        torch.manual_seed(derive(5, "eval/wrn/weights"))
        network = WideResNet(40, 4, channels=1, num_classes=4).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2, pct_start=0.15)
    for _ in range(2):
        rows = torch.randint(20, (4,), generator=rng)
        x = random_shift(to_network(data.images[rows.numpy()]), 1, rng)
        F.cross_entropy(network(x), torch.from_numpy(data.labels)[rows]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert same(network, fit(data, Recipe(steps=2, batch_size=4), seed=5))


def test_nothing_but_samples_seed_and_stream_decides_the_weights():
    torch.manual_seed(1)
    network = fit(samples())
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(network, fit(samples()))
    assert not same(network, fit(samples(), seed=1))
    assert not same(network, fit(samples(seed=1)))
    assert not same(network, fit(samples(), stream="another"))


def test_training_leaves_the_global_generator_alone_even_with_dropout():
    before = torch.get_rng_state()
    recipe = Recipe(classifier=ClassifierName.wrn16_4, dropout=0.5, steps=1, batch_size=4)
    assert same(fit(samples(), recipe), fit(samples(), recipe))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_is_one_of_the_samples_kind_and_reports_every_step():
    done: list[int] = []
    network = train(samples(channels=3), SMALL, seed=0, device=CPU, advance=done.append)
    assert done == [1, 1, 1]
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"norm": Norm.group},
        {"batch_size": 8},
        {"learning_rate": 0.05},
        {"schedule": LearningRateSchedule.cosine},
        {"schedule": LearningRateSchedule.one_cycle},
        {"momentum": 0.5},
        {"nesterov": False},
        {"weight_decay": 0.1},
        {"label_smoothing": 0.1},
        {"ema_decay": 0.9},
        {"augmult": 2},
        {"augmentations": [Augmentation.flip]},
        {"augmentations": []},
    ],
)
def test_every_setting_reaches_the_weights(change):
    assert not same(fit(samples(), replace(SMALL, **change)), fit(samples()))


def test_balanced_classes_have_equal_weight_together():
    """As scikit-learn's `class_weight="balanced"`, and no different where classes are of equal size."""
    uneven = samples()[np.array([0, 1, 2, 3, 4, 5, 8, 9, 12, 16])]
    balanced = replace(SMALL, balance_classes=True)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=uneven.labels)
    weights = balanced.class_weights(uneven, CPU)
    assert weights is not None
    assert weights.tolist() == pytest.approx(expected)
    assert SMALL.class_weights(uneven, CPU) is None
    assert not same(fit(uneven, balanced), fit(uneven))
    assert same(fit(samples(), balanced), fit(samples()))


def test_a_class_without_samples_has_no_weight():
    one = samples()[np.flatnonzero(samples().labels == 2)]
    weights = replace(SMALL, balance_classes=True).class_weights(one, CPU)
    assert weights is not None
    assert weights.tolist() == [0, 0, 0.25, 0]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (LearningRateSchedule.constant, [0.2] * 4),
        (LearningRateSchedule.cosine, [0.1 * (1 + np.cos(np.pi * t / 4)) for t in range(4)]),
    ],
)
def test_a_schedule_is_its_closed_form(schedule, rates):
    recipe = replace(SMALL, schedule=schedule, learning_rate=0.2, steps=4)
    optimizer = recipe.optimizer(torch.nn.Linear(1, 1))
    schedules, found = recipe.rates(optimizer), []
    for _ in range(4):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedules.step()
    assert found == pytest.approx(rates)


def test_a_batch_is_k_copies_of_each_sample_in_passes_that_share_it():
    data, recipe = samples(), Recipe(batch_size=20, augmult=3, pass_size=14, augmentations=[])
    parts = list(recipe.passes(data.images, data.labels, torch.Generator(), CPU))
    assert all(6 <= len(x) <= 14 for x, _, _ in parts)
    assert sum(share for *_, share in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([x for x, _, _ in parts]), to_network(data.images).repeat_interleave(3, 0))
    assert torch.equal(torch.cat([y for _, y, _ in parts]), torch.from_numpy(data.labels).repeat_interleave(3))


def test_copies_are_augmented_each_on_its_own():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), (2, 8, 8, 1))
    ((x, _, _),) = Recipe(augmult=50).passes(ramp, np.zeros(2, np.int64), torch.Generator().manual_seed(0), CPU)
    assert len(x[:50].flatten(1).unique(dim=0)) == len(x[50:].flatten(1).unique(dim=0)) == 9


def test_batch_norm_sees_one_pass():
    batch = replace(SMALL, batch_size=8)
    assert not same(fit(samples(), batch), fit(samples(), replace(batch, pass_size=4)))


def test_passes_add_up_to_the_gradient_of_the_batch():
    whole = replace(SMALL, norm=Norm.group, augmentations=[], batch_size=9)
    one, parts = fit(samples(), whole), fit(samples(), replace(whole, pass_size=4))
    for p, q in zip(one.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)


def test_averaged_weights_get_statistics_of_their_own():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.uint8)
    data = SampleSet(image.repeat(20, 0), np.arange(20) % 4, 4)
    network = fit(data, replace(SMALL, ema_decay=0.9, augmentations=[], learning_rate=1.0))
    convolution, norm = network.body[0][:2]
    with torch.inference_mode():
        mean = convolution(to_network(image)).mean((0, 2, 3))
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)


def test_a_start_lends_its_body_and_is_left_as_it_was():
    start = fit(samples(classes=7))
    before = {name: value.clone() for name, value in start.state_dict().items()}
    network = fit(samples(), replace(SMALL, steps=1, learning_rate=1e-9), start=start)
    assert network.head.weight.shape == (4, 128)
    for p, q in zip(network.body.parameters(), start.body.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())


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


def test_logits_do_not_depend_on_the_batch_or_the_training_mode():
    network = fit(samples())
    for mode in (True, False):
        for batch_size in (3, 512):
            assert np.allclose(
                logits(network.train(mode), samples(), CPU, batch_size), logits(network, samples(), CPU), atol=1e-5
            )


def test_cost_grows_with_the_images_of_a_step_and_memory_with_those_of_a_pass():
    flops, kept = SMALL.step_cost((8, 8, 1), 10)
    more, larger = replace(SMALL, batch_size=8, augmult=3).step_cost((8, 8, 1), 10)
    assert more == 6 * flops
    assert larger > kept
    assert replace(SMALL, batch_size=8, augmult=3, pass_size=4).step_cost((8, 8, 1), 10) == (more, kept)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 1}, "batch_size"),
        ({"augmult": 0}, "augmult"),
        ({"pass_size": 7, "augmult": 4}, "pass_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"dropout": 0.5}, "dropout"),
        ({"momentum": 0.0}, "nesterov"),
        ({"momentum": 0.5, "schedule": LearningRateSchedule.one_cycle}, "momentum"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(change, key):
    recipe = replace(SMALL, **change)
    with rejects(f"x.{key}", getattr(recipe, key)):
        recipe.check_recipe("x")
