"""The intrinsic dimension of variations: where it is known, and of a generator that moves along known directions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from data.samples import SampleSet
from eval.intrinsic import IntrinsicDimension, Start, intrinsic_dimension, singular_values
from models.public.callable import CallableModel
from models.public.settings import Model, PublicModel
from tests.command import typed
from tests.eval.world import PIXELS, PRIVATE, SAMPLE, TEST, context, flat
from tests.rejects import rejects

RNG = np.random.default_rng(0)


def dimension(vectors: np.ndarray, explained: float = 0.8) -> int:
    return intrinsic_dimension(singular_values(vectors), explained)


@pytest.mark.parametrize("dim", [1, 3, 10])
def test_points_of_a_subspace_have_its_dimension_wherever_it_lies(dim):
    directions = np.linalg.qr(RNG.normal(size=(40, dim)))[0]
    vectors = RNG.normal(size=(2000, dim)) @ directions.T + 100 * RNG.normal(size=40)
    assert dimension(vectors, 0.9999) == dim


def test_it_counts_the_largest_variances_that_make_up_the_share():
    vectors = np.diag(np.sqrt([50.0, 30.0, 15.0, 5.0]))
    vectors = np.concatenate([vectors, -vectors])  # mean 0, variances in the ratio 50 : 30 : 15 : 5
    assert [dimension(vectors, share) for share in (0.4, 0.51, 0.79, 0.81, 0.94, 0.96)] == [1, 2, 2, 3, 3, 4]


def test_the_singular_values_are_the_spread_along_the_principal_axes():
    vectors = RNG.normal(size=(500, 6)) * [5, 4, 3, 2, 1, 0.5]
    covariance = np.cov(vectors.T)
    assert np.square(singular_values(vectors)) / 499 == pytest.approx(np.linalg.eigvalsh(covariance)[::-1])


def test_copies_have_no_dimension():
    assert dimension(np.ones((10, 4))) == 0


class Directions:
    """VARIATION moves an image along its first `degree` pixels."""

    num_labels = 7

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, np.ndarray]] = []

    def variation(self, images, labels, degree, *, stream, respacing=None, advance: Any = None) -> np.ndarray:
        self.asked.append((images, labels))
        out = images.reshape(len(images), -1).copy()
        out[:, : int(degree)] = np.random.default_rng(0).integers(0, 256, (len(images), int(degree)))
        return out.reshape(images.shape)


class Directed(Model):
    """Settings of a model that is `Directions`."""

    def __init__(self, highest: float = 10):
        self.name, self.generator, self.highest = "directed", Directions(), highest

    @property
    def highest_degree(self) -> float:
        return self.highest

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (8, 8, 3)

    def build(self, dataset, device, seed) -> PublicModel:
        return PublicModel(self.name, cast(Any, self.generator), {})


def varied(tmp_path, model: Directed, samples: SampleSet | None = None, **settings: Any) -> dict[str, float]:
    judged = context(tmp_path, samples or flat(SAMPLE, 4), flat(PRIVATE, 6), flat(TEST, 4), model=model)
    return dict(IntrinsicDimension(embedding=PIXELS, variations=50, explained=0.999, **settings).evaluate(judged))


def test_the_evaluator_finds_the_directions_that_each_degree_moves_along_and_draws_them(tmp_path):
    found = varied(tmp_path, Directed(), degrees=[1.0, 4.0, 20.0])
    assert found == {f"intrinsic_dimension/degree_{degree}": degree for degree in (1, 4, 20)}
    assert {path.name for path in tmp_path.iterdir()} == {"intrinsic_dimension.svg", "intrinsic_dimension.png"}


@pytest.mark.parametrize(("start", "channel"), [(Start.private, PRIVATE), (Start.samples, SAMPLE)])
def test_all_are_variations_of_one_image_at_one_public_label(tmp_path, start, channel):
    samples = flat(SAMPLE, 4)
    samples.public_labels = np.array([5, 5, 5, 5])
    varied(tmp_path, model := Directed(), samples, degrees=[1.0, 2.0], start=start)
    images, labels = (np.concatenate(arrays) for arrays in zip(*model.generator.asked, strict=True))
    assert len(np.unique(images, axis=0)) == len(np.unique(labels)) == 1
    assert images[..., channel].all()
    assert start is Start.private or labels[0] == 5


@pytest.mark.parametrize(("highest", "degrees"), [(10, {1, 3, 5, 7, 9, 10}), (2, {1, 2}), (1.0, {0.1, 0.3, 0.5, 0.7, 0.9, 1})])
def test_without_degrees_the_model_s_own_are_covered(tmp_path, highest, degrees):
    found = varied(tmp_path, Directed(highest))
    assert found.keys() == {f"intrinsic_dimension/degree_{degree:g}" for degree in degrees}


def test_a_private_image_is_not_sent_to_a_remote_api():
    config = typed()
    remote: Any = CallableModel(factory="my_module:MyAPI", image_size=8, image_channels=1)
    asks = IntrinsicDimension(embedding=PIXELS, degrees=[3.0])
    with rejects("eval.x.start", "private", "model=callable"):
        asks.check("eval.x", config.dataset, remote, remote.spaces)
    asks.start = Start.samples
    asks.check("eval.x", config.dataset, remote, remote.spaces)
    asks.degrees = []
    with rejects("eval.x.degrees", []):
        asks.check("eval.x", config.dataset, remote, remote.spaces)
