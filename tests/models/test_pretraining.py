"""Ordinary training on public images: it learns, resumes bitwise, and stands classes in for others as it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data.samples import SampleSet
from models.diffusion.model import DiffusionModel
from models.diffusion.schedules import linear_alpha_bar
from models.diffusion.timesteps import Interval
from models.public.pretraining import LearningRate, PretrainingConfig, pretrain, stand_ins, train_features
from tests.rejects import rejects
from tests.toy import denoiser, tiny_unet

ALPHA_BAR = linear_alpha_bar(100)


def blobs(count: int = 60, classes: int = 3) -> SampleSet:
    labels = np.arange(count) % classes
    images = np.random.default_rng(0).integers(0, 60, (count, 8, 8, 1)) + 90 * labels.reshape(-1, 1, 1, 1)
    return SampleSet(np.clip(images, 0, 255).astype(np.uint8), labels, classes)


def recipe(**changes: Any) -> PretrainingConfig:
    return PretrainingConfig(**{**dict(steps=6, batch_size=8, checkpoint_steps=1, ema_decay=0.5), **changes})


def model(unet: Any = None, **settings: Any) -> DiffusionModel:
    return denoiser(unet or tiny_unet(num_class_embeds=4), alpha_bar=ALPHA_BAR, num_labels=3, **settings)


def trained(folder, made: DiffusionModel | None = None, **changes: Any) -> dict[str, torch.Tensor]:
    made = made or model()
    list(pretrain(made, blobs(), recipe(**changes), 0, folder / "training.pt"))
    return made.network.state_dict()


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("schedule", LearningRate)
def test_an_interrupted_training_ends_in_the_same_weights(schedule, tmp_path):
    whole = trained(tmp_path, schedule=schedule)
    (tmp_path / "parts").mkdir()
    for step in pretrain(model(), blobs(), recipe(schedule=schedule), 0, tmp_path / "parts" / "training.pt"):
        if step == 4:
            break
    assert equal(whole, trained(tmp_path / "parts", schedule=schedule))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_any_number_of_steps_has_a_schedule(steps, tmp_path):
    """Also one step to rise in: torch divides by the others."""
    assert trained(tmp_path, steps=steps, warmup=0.5, schedule=LearningRate.one_cycle)


@pytest.mark.parametrize(("patch", "steps"), [(1, 60), (2, 120)])
def test_training_lowers_the_loss(patch, steps, tmp_path):
    def loss() -> float:
        rng = torch.Generator().manual_seed(0)
        samples = blobs()
        x = torch.from_numpy(samples.images).permute(0, 3, 1, 2).float() / 127.5 - 1
        t, noise = torch.randint(100, (60,), generator=rng), torch.randn(x.shape, generator=rng)
        a = torch.from_numpy(ALPHA_BAR).float()[t].reshape(-1, 1, 1, 1)
        with torch.no_grad():
            predicted = made.predict_noise(a.sqrt() * x + (1 - a).sqrt() * noise, t, torch.from_numpy(samples.labels))
        return float((predicted - noise).square().mean())

    channels = {"in_channels": patch**2, "out_channels": patch**2, "sample_size": 8 // patch}
    made = model(tiny_unet(num_class_embeds=4, **channels), patch=patch)
    before = loss()
    trained(tmp_path, made, steps=steps, checkpoint_steps=100)
    assert loss() < 0.6 * before


def test_unconditional_training_moves_the_null_label_alone(tmp_path):
    before = tiny_unet(num_class_embeds=4).class_embedding.weight.detach()
    after = trained(tmp_path, conditional=False, weight_decay=0.0)["class_embedding.weight"]
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3], after[3])


def test_the_mixture_says_which_timesteps_are_trained(tmp_path, monkeypatch):
    seen: list[int] = []
    unet = tiny_unet(num_class_embeds=4)
    unet.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[1].tolist()))
    trained(tmp_path, model(unet), timestep_mixture=[Interval(weight=1.0, low=10, high=12)])
    assert set(seen) == {10, 11}


def test_stand_ins_are_the_images_of_the_mapped_classes():
    samples = blobs(60, classes=4)
    part = stand_ins(samples, ["a", "b", "c", "d"], ["d", "a"], labels=2)
    assert part.num_classes == 2
    assert np.array_equal(part.images[part.labels == 0], samples.images[samples.labels == 3])
    assert np.array_equal(part.images[part.labels == 1], samples.images[samples.labels == 0])
    assert len(part) == 30


@pytest.mark.parametrize(
    ("classes", "value"),
    [(["a"], "1 of them"), (["a", "e"], "e"), (["a", "a"], ["a", "a"])],
)
def test_a_wrong_mapping_is_refused(classes, value):
    with rejects("recipe.classes", value):
        stand_ins(blobs(60, classes=4), ["a", "b", "c", "d"], classes, labels=2)


@pytest.mark.parametrize(
    ("settings", "null_label", "key"),
    [
        ({"steps": 0}, True, "recipe.steps"),
        ({"learning_rate": -1.0}, True, "recipe.learning_rate"),
        ({"warmup": 1.0}, True, "recipe.warmup"),
        ({"ema_decay": 1.0}, True, "recipe.ema_decay"),
        ({}, False, "recipe.label_dropout"),
        ({"label_dropout": 0.0, "conditional": False}, False, "recipe.conditional"),
        ({"timestep_mixture": [Interval(weight=1.0, low=0, high=2000)]}, True, "recipe.timestep_mixture"),
    ],
)
def test_a_wrong_recipe_is_refused(settings, null_label, key):
    with rejects(key):
        recipe(**settings).check(null_label, 1000)


def test_features_tell_the_classes_apart():
    samples = blobs()
    steps: list[int] = []
    network = train_features(samples, 30, 16, 0, steps.append)
    assert sum(steps) == 30
    x = torch.from_numpy(samples.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert float((network(x).argmax(1).numpy() == samples.labels).mean()) > 0.9
