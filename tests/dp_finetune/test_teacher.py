"""`method=dp_teacher`: what its budget goes to, which candidates a class gets, and that it knows what moments do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.private import PrivateDataset
from data.samples import SampleSet
from dp_finetune.dpsgd import OptimizerName
from dp_finetune.engines import EngineName
from dp_finetune.teacher import Candidates, DPTeacher, probabilities, taken
from method import Method
from models.classifiers.networks import ClassifierName
from moments.measure import BasisName
from moments.method import DPMoments
from moments.warm_up import MomentsFirst
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.config import Privacy
from privacy.gaussian import gaussian_epsilon
from privacy.mechanisms import Gaussian, SampledGaussian
from privacy.noise import NoiseSource
from tests.conformance.worlds import SIDE, Grey, model_settings, tiny_model
from tests.rejects import rejects

FIRST: dict[str, Any] = dict(epsilon=0.5, num_samples=30, steps=3, batch_size=4, learning_rate=0.05, components=8)
METHOD = DPTeacher(
    num_samples=12, steps=2, batch_size=6, augmult=1, gradient_engine=EngineName.batched, warm_up=Candidates(**FIRST)
)
BUDGET = Privacy(epsilon=2.0)


def test_moments_have_their_share_and_the_teacher_the_rest():
    METHOD.check(Grey(), model_settings(), BUDGET)
    plan = Plan.make(METHOD, Grey(), BUDGET)
    spent = {spend.purpose: spend.mechanism for spend in plan.spends}
    assert spent.keys() == {"location", "moments", "dp_sgd"}
    shares = [spent[purpose].noise_multiplier for purpose in ("location", "moments")]  # type: ignore[attr-defined]
    assert all(isinstance(spent[purpose], Gaussian) for purpose in ("location", "moments"))
    together = sum(sigma**-2 for sigma in shares) ** -0.5
    assert gaussian_epsilon(together, plan.delta) == pytest.approx(0.5, rel=1e-9)
    assert isinstance(spent["dp_sgd"], SampledGaussian)
    assert 1.99 < plan.epsilon <= 2.0


def test_a_class_gets_the_first_candidates_that_are_surely_of_it_and_none_twice():
    probabilities = np.array([[0.6, 0.4], [0.95, 0.05], [0.1, 0.9], [0.9, 0.1], [0.99, 0.01], [0.3, 0.7]])
    assert taken(probabilities, np.array([2, 1]), confidence=0.8).tolist() == [1, 3, 2]
    assert taken(probabilities, np.array([2, 1]), confidence=0.0).tolist() == [0, 1, 2]
    # of class 1 there is one sure candidate: the next is the most probable of those that are left
    assert taken(probabilities, np.array([1, 3]), confidence=0.8).tolist() == [1, 2, 5, 0]
    everything = taken(probabilities, np.array([3, 3]), confidence=0.99)
    assert sorted(everything.tolist()) == list(range(6))


def test_a_teacher_that_has_diverged_leaves_the_classes_that_candidates_were_drawn_for():
    scores = np.array([[1.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]], np.float32)
    found = probabilities(scores, np.array([1, 1, 0]))
    assert found.tolist() == [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]


def test_candidates_are_looked_at_in_an_order_that_no_class_or_cell_decides(tmp_path, monkeypatch):
    """They are drawn class by class, and the first are taken."""
    seen: list[np.ndarray] = []

    def scores(teacher: Any, drawn: SampleSet, device: Any) -> np.ndarray:
        seen.append(drawn.labels)
        return np.zeros((len(drawn), drawn.num_classes), np.float32)

    monkeypatch.setattr("dp_finetune.teacher.logits", scores)
    made(METHOD, tmp_path)
    assert not (np.diff(seen[0]) >= 0).all()


def made(method: Method, folder: Path, dataset: Grey | None = None, privacy: Privacy = BUDGET) -> SampleSet:
    dataset = dataset or Grey()
    folder.mkdir(exist_ok=True)
    session = Session.open(dataset, privacy, Plan.make(method, dataset, privacy), NoiseSource(bytes(32)), folder)
    samples = method.run(session.private, tiny_model()[0], session.run)
    assert isinstance(samples, SampleSet)
    return samples


def test_what_it_releases_is_drawn_before_the_teacher_sees_a_private_image(tmp_path, monkeypatch):
    """The teacher chooses among images, and makes none."""
    drawn: list[SampleSet] = []
    real, draw = PrivateDataset.spend, MomentsFirst.draw

    def spend(self: PrivateDataset, purpose: str, mechanism: Any) -> SampleSet:
        assert drawn or purpose in ("location", "moments")
        return real(self, purpose, mechanism)

    def keeping(self: MomentsFirst, moment: Any, seed: int) -> SampleSet:
        drawn.append(draw(self, moment, seed))
        return drawn[0]

    monkeypatch.setattr(PrivateDataset, "spend", spend)
    monkeypatch.setattr(MomentsFirst, "draw", keeping)
    samples = made(METHOD, tmp_path)
    candidates = [image.tobytes() for image in drawn[0].images]
    released = [image.tobytes() for image in samples.images]
    assert set(released) <= set(candidates)
    assert len(samples) == METHOD.num_samples


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"epsilon": None}, "epsilon"),
        ({"epsilon": 2.0}, "epsilon"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"num_samples": 11}, "num_samples"),
        ({"basis": BasisName.latents}, "basis"),
    ],
)
def test_moments_that_cannot_be_are_refused(changes, key):
    method = replace(METHOD, warm_up=Candidates(**{**FIRST, **changes}))
    with rejects(f"method.warm_up.{key}"):
        method.check(Grey(), model_settings(), BUDGET)


def test_a_network_that_is_too_large_for_the_images_is_refused():
    @dataclass(kw_only=True)
    class Tiny(Grey):
        @property
        def shape(self) -> tuple[int, int, int]:
            return (3, 3, 1)

    with rejects("method.classifier", "tanh_cnn"):
        METHOD.check(Tiny(), model_settings(), BUDGET)


def test_it_uses_the_public_model_for_latents_alone():
    assert not METHOD.uses_model
    assert replace(METHOD, warm_up=Candidates(**FIRST, basis=BasisName.latents)).uses_model


def test_its_plan_says_where_a_teacher_has_too_few_images():
    few, enough = (METHOD.hints(Grey(count=count), model_settings(), BUDGET, 1.0) for count in (9_999, 10_000))
    assert few[0].startswith("A teacher of 9,999 private images knows little")
    assert not any("teacher" in hint for hint in enough)


def test_its_plan_counts_the_training_on_samples_of_moments_too():
    longer = replace(METHOD, warm_up=Candidates(**{**FIRST, "steps": 13}))
    works = [m.work(Grey(), model_settings())["backward_calls"] or 0 for m in (longer, METHOD)]
    assert works[0] - works[1] == 10 * FIRST["batch_size"]


SIDES = np.repeat([[1.0, -1.0]], SIDE // 2, axis=1) * np.ones((SIDE, 1))
PATTERNS = np.stack([SIDES, SIDES.T, SIDES * SIDES.T])  # left and right, top and bottom, and the quarters on each diagonal


@dataclass(kw_only=True)
class Apart(Grey):
    """Images with one bright quarter, or with one dark quarter. Means and covariances of both classes are the same: what differs
    is the sign of the product of three patterns, a third moment."""

    @property
    def all_classes(self) -> list[str]:
        return ["dark", "bright"]

    def train(self) -> SampleSet:
        rng = np.random.default_rng(0)
        signs = rng.choice([-1, 1], (self.count, 3))
        images = 128 + 30 * np.einsum("np,phw->nhw", signs, PATTERNS) + rng.integers(-20, 21, (self.count, SIDE, SIDE))
        return SampleSet(images.astype(np.uint8)[..., None], (signs.prod(1) > 0).astype(np.int64), 2)


def right(samples: SampleSet) -> float:
    """Share of labels that are what the image shows."""
    product = np.einsum("nhw,phw->np", samples.images[..., 0].astype(float), PATTERNS).prod(1)
    return float(((product > 0) == samples.labels).mean())


def test_the_teacher_tells_classes_apart_that_moments_cannot(tmp_path):
    """Chance is 0.5; with hardly any noise."""
    dataset, privacy = Apart(count=600), Privacy(noise_multiplier=0.1)
    assert right(dataset.train()) == 1
    first = Candidates(epsilon=1e4, num_samples=3000, steps=20, batch_size=50, components=8)
    settings: dict[str, Any] = dict(steps=100, batch_size=100, augmult=1, max_grad_norm=1.0, gradient_engine=EngineName.batched)
    tried: dict[str, Any] = dict(optimizer=OptimizerName.sgd, learning_rate=1.0, momentum=0.9, ema_decay=0.9, confidence=0.9)
    teacher = DPTeacher(num_samples=500, classifier=ClassifierName.cnn, warm_up=first, **settings, **tried)
    assert right(made(teacher, tmp_path, dataset, privacy)) > 0.85
    assert right(made(DPMoments(num_samples=500, components=8), tmp_path / "moments", dataset, privacy)) < 0.65
