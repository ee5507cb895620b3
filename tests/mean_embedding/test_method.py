"""dp_merf and dp_mepf, beyond what every method keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.dataset import ClassCounts
from data.samples import SampleSet
from mean_embedding.features import COUNT
from mean_embedding.generator import generate
from mean_embedding.method import DPMEPF, DPMERF
from models.features.extractors import PublicFeatures
from models.features.spaces import EmbeddingName
from models.public.settings import PublicModel
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.config import Privacy
from privacy.gaussian import gaussian_epsilon
from privacy.mechanisms import Gaussian
from privacy.noise import NoiseSource
from tests.conformance.worlds import Grey, grey, model_settings, tiny_model
from tests.rejects import rejects

SMALL: dict[str, Any] = dict(num_samples=60, steps=3, batch_size=12, width=2)
BOTH = [DPMERF(**SMALL, num_features=40), DPMEPF(**SMALL, embedding=EmbeddingName.pixels)]
PRIVACY = Privacy(noise_multiplier=2.0)
both = pytest.mark.parametrize("method", BOTH, ids=lambda method: method.name)


def opened(folder: Path, method: Any, dataset: Grey, privacy: Privacy = PRIVACY) -> Session:
    folder.mkdir(exist_ok=True)
    return Session.open(dataset, privacy, Plan.make(method, dataset, privacy), NoiseSource(bytes(32)), folder)


@both
def test_the_plan_is_one_gaussian_mechanism_and_its_epsilon_the_closed_form(method):
    plan = Plan.make(method, Grey(closed=True), Privacy(noise_multiplier=3.0))
    assert [(s.purpose, s.mechanism, s.count) for s in plan.spends] == [("mean_embedding", Gaussian(3.0), 1)]
    assert plan.epsilon == pytest.approx(gaussian_epsilon(3.0, plan.delta), rel=1e-6)


@both
def test_what_is_kept_has_the_noise_that_the_ledger_names(method, tmp_path):
    kept = {}
    for sigma in (1e-9, 2.0):
        session = opened(tmp_path / str(sigma), method, Grey(), Privacy(noise_multiplier=sigma))
        method.run(session.private, tiny_model()[0], session.run)
        kept[sigma] = np.load(tmp_path / str(sigma) / "mean_embedding.npz")["sums"]
    noise = kept[2.0] - kept[1e-9]
    assert kept[1e-9][:, 0] == pytest.approx(COUNT * 16)
    assert noise.std() == pytest.approx(2.0, rel=0.15)
    assert abs(noise.mean()) < 4 * 2.0 / noise.size**0.5


@both
def test_class_counts_may_be_those_of_the_noisy_sums_at_no_further_cost(method, tmp_path):
    @dataclass(kw_only=True)
    class Uneven(Grey):
        class_counts: ClassCounts = ClassCounts.moments

        def train(self) -> SampleSet:
            made = grey(self.count * 3, first=0)
            rows = np.concatenate([np.flatnonzero(made.labels == c)[:n] for c, n in enumerate((24, 16, 8))])
            return made[np.sort(rows)]

    session = opened(tmp_path / "run", method, Uneven(), Privacy(noise_multiplier=1e-3))
    method.check(Uneven(), model_settings(), PRIVACY)
    samples = method.run(session.private, tiny_model()[0], session.run)
    assert np.bincount(samples.labels).tolist() == [30, 20, 10]
    assert [spend.purpose for spend in session.ledger.spends] == ["mean_embedding"]


def test_the_public_features_of_a_network_are_matched(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PublicFeatures(width=8, dim=5)
    model = PublicModel("network", tiny_model()[0].api, {EmbeddingName.public_features: network})
    method = DPMEPF(**SMALL)
    session = opened(tmp_path / "run", method, Grey())
    assert len(method.run(session.private, model, session.run)) == 60
    assert np.load(tmp_path / "run" / "mean_embedding.npz")["sums"].shape == (3, 1 + 2 * (8 * 64 + 8 * 64 + 16 * 16 + 5))


def test_a_plan_knows_how_many_features_a_network_has():
    """Of the digits' extractor, 32 channels wide: 64 + 64 positions of 32, 16 of 64, and 64 features; two moments of each."""
    _, size, network = DPMEPF(**SMALL).feature_cost(Grey(closed=True), model_settings())
    assert size == 2 * (64 * 32 + 64 * 32 + 16 * 64 + 64)
    assert network is not None
    assert DPMEPF(**SMALL, embedding=EmbeddingName.inception).memory(Grey(closed=True), model_settings()) is None


def test_an_embedding_without_gradients_is_refused_before_anything_is_spent(tmp_path):
    class Remote:
        identity = "remote"

        def embed(self, images: np.ndarray) -> np.ndarray:
            return np.zeros((len(images), 2), np.float32)

    model = PublicModel("remote", tiny_model()[0].api, {EmbeddingName.pixels: Remote()})
    session = opened(tmp_path / "run", BOTH[1], Grey(closed=True))
    with rejects("method.embedding", "pixels"):
        BOTH[1].run(session.private, model, session.run)
    assert not session.ledger.spends


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        (DPMERF, "num_features", 41),
        (DPMERF, "num_features", 0),
        (DPMERF, "length_scale", 0.0),
        (DPMERF, "length_scale", float("nan")),
        (DPMERF, "kernel_scales", []),
        (DPMERF, "kernel_scales", [1.0, 0.0]),
        (DPMEPF, "square_share", 1.5),
        (DPMEPF, "code_size", 0),
        (DPMERF, "width", 0),
        (DPMERF, "learning_rate", float("inf")),
        (DPMERF, "batch_size", 5),
        (DPMERF, "num_generators", 0),
    ],
)
def test_settings_that_cannot_run_are_refused(method, key, value):
    with rejects(f"method.{key}", value):
        method(**{**SMALL, key: value}).check(Grey(closed=True), model_settings(), PRIVACY)


@both
def test_of_several_generators_each_makes_an_equal_share_of_every_class(method, tmp_path, monkeypatch):
    made = []

    def spy(generator, labels, *rest):
        made.append((generator.body[0].weight.clone(), np.bincount(labels).tolist()))
        return generate(generator, labels, *rest)

    monkeypatch.setattr("mean_embedding.method.generate", spy)
    session = opened(tmp_path / "run", method, Grey())
    one = method.run(session.private, tiny_model()[0], session.run)
    several = type(method)(**{**vars(method), "num_generators": 2})
    session = opened(tmp_path / "several", several, Grey())
    two = several.run(session.private, tiny_model()[0], session.run)
    assert [spend.purpose for spend in session.ledger.spends] == ["mean_embedding"]
    (alone, whole), (first, half), (second, other) = made
    assert torch.equal(alone, first)
    assert not torch.equal(first, second)
    assert (whole, half, other) == ([20] * 3, [10] * 3, [10] * 3)
    assert np.array_equal(one.labels, two.labels)
    assert len(np.unique(two.images, axis=0)) == 60


@both
def test_images_that_are_too_large_are_refused(method):
    @dataclass(kw_only=True)
    class Large(Grey):
        @property
        def shape(self) -> tuple[int, int, int]:
            return (65, 8, 1)

    with rejects("dataset", "grey"):
        method.check(Large(closed=True), model_settings(), PRIVACY)


@both
def test_a_plan_counts_the_generator(method):
    dataset, model = Grey(closed=True), model_settings()
    wide = type(method)(**{**vars(method), "width": 20})
    facts = [m.training_facts(dataset, model) for m in (method, wide)]
    made = method.generator(dataset.shape, 3)
    assert facts[0]["trainable_parameters"] == sum(p.numel() for p in made.parameters())
    assert facts[0]["backward_flops"] < facts[1]["backward_flops"]
    assert method.memory(dataset, model) < wide.memory(dataset, model)
    assert method.work(dataset, model) == {"steps": 3, "network_calls": 0, "backward_calls": 36}
    several = type(method)(**{**vars(method), "num_generators": 2})
    assert several.training_facts(dataset, model)["trainable_parameters"] == 2 * facts[0]["trainable_parameters"]
    assert several.work(dataset, model) == {"steps": 6, "network_calls": 0, "backward_calls": 72}
