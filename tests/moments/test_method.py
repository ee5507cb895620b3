"""dp_moments and the warm-up of other methods, beyond what every method keeps."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.dataset import ClassCounts
from data.private import PrivateDataset
from data.samples import SampleSet
from dp_finetune.method import DPDiffusion
from models.diffusion.autoencoder import Autoencoder
from models.public.settings import PublicModel
from moments.basis import _encoded
from moments.measure import CELLS, CLEAR, MOST_CHANGE, VISIBLE, BasisName, Prior, cells, measure, weights
from moments.method import DPMoments
from moments.warm_up import WarmUp
from pe.evolution import InitialLabels, PrivateEvolution
from pipeline.plan import Plan, network_work
from pipeline.session import Session
from privacy.config import Privacy
from privacy.gaussian import gaussian_epsilon
from privacy.mechanisms import Gaussian
from privacy.noise import NoiseSource
from tests.command import composed_model
from tests.conformance.test_methods import DP_SGD, PE
from tests.conformance.worlds import CLASSES, Grey, grey, model_settings, tiny_model
from tests.models.test_latents import tiny_vae
from tests.rejects import rejects
from tests.toy import denoiser, tiny_unet

PRIVACY = Privacy(noise_multiplier=1e-4)
SIZE = 64


@dataclass(kw_only=True)
class OtherPublic(Grey):
    """Whose public images have other classes than the private ones."""

    public_count: int = 90

    @property
    def public_classes(self) -> list[str]:
        return ["noise"] * CLASSES


WithPublic = functools.partial(Grey, public_count=90)


def opened(tmp_path, method: Any, dataset: Grey, privacy: Privacy = PRIVACY) -> Session:
    plan = Plan.make(method, dataset, privacy)
    return Session.open(dataset, privacy, plan, NoiseSource(bytes(32)), tmp_path)


def measured(tmp_path, dataset: Grey, sigma: float = 1e-4, model: PublicModel | None = None, **settings: Any):
    method = DPMoments(num_samples=30, components=SIZE, **settings)
    session = opened(tmp_path, method, dataset, Privacy(noise_multiplier=sigma))
    return measure(method, session.private, model or tiny_model()[0], session.run, sigma)


@pytest.mark.parametrize("dataset", [Grey(count=300), WithPublic(count=300), OtherPublic(count=300)])
@pytest.mark.parametrize("cells", [None, 1])
def test_with_hardly_any_noise_the_samples_have_the_means_and_covariances_of_the_private_classes(tmp_path, dataset, cells):
    moment = measured(tmp_path, dataset, sigma=1e-6, cells=cells, clip_norm=10.0)
    drawn, private = moment.draw(np.full(CLASSES, 20_000), np.random.default_rng(0)), dataset.train()
    for label in range(CLASSES):
        ours, theirs = (s.images[s.labels == label].reshape(-1, SIZE) / 255.0 for s in (drawn, private))
        np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.02)  # black and white cut a normal distribution
        assert np.linalg.norm(np.cov(ours.T) - np.cov(theirs.T)) < 0.3 * np.linalg.norm(np.cov(theirs.T))


@pytest.mark.parametrize(
    ("method", "dataset"), [(DPMoments(), WithPublic()), (DPMoments(location_share=0), Grey()), (DPMoments(), OtherPublic())]
)
def test_the_plan_is_one_gaussian_mechanism_and_its_epsilon_the_closed_form(method, dataset):
    plan = Plan.make(method, dataset, Privacy(noise_multiplier=3.0))
    assert [(s.purpose, s.mechanism, s.count) for s in plan.spends] == [("moments", Gaussian(3.0), 1)]
    assert plan.epsilon == pytest.approx(gaussian_epsilon(3.0, plan.delta), rel=1e-6)


def test_without_public_images_the_location_takes_its_share_and_both_cost_what_one_did():
    plan = Plan.make(DPMoments(location_share=0.2), Grey(), Privacy(noise_multiplier=3.0))
    sigmas = {spend.purpose: spend.mechanism.noise_multiplier for spend in plan.spends}  # type: ignore[attr-defined]
    assert list(sigmas) == ["location", "moments"]
    assert 3.0**2 / sigmas["location"] ** 2 == pytest.approx(0.2)
    assert plan.epsilon == pytest.approx(gaussian_epsilon(3.0, plan.delta), rel=1e-3)


@pytest.mark.parametrize("dataset", [WithPublic(), OtherPublic()])
def test_first_moments_take_their_share_and_both_cost_what_one_did(dataset):
    plan = Plan.make(DPMoments(cells_share=0.2), dataset, Privacy(noise_multiplier=3.0))
    sigmas = {spend.purpose: spend.mechanism.noise_multiplier for spend in plan.spends}  # type: ignore[attr-defined]
    assert list(sigmas) == ["cells", "moments"]
    assert 3.0**2 / sigmas["cells"] ** 2 == pytest.approx(0.2)
    assert plan.epsilon == pytest.approx(gaussian_epsilon(3.0, plan.delta), rel=1e-3)


def test_cells_are_cut_where_the_private_images_lie_and_not_the_public_ones(tmp_path):
    """Public images are all in one of the two places where private ones are: both their cells are there."""

    @dataclass(kw_only=True)
    class InTwoPlaces(Grey):
        public_count: int = 90

        def train(self) -> SampleSet:
            made = super().train()
            images = made.images // 3
            images[::2, :4] += 150
            return SampleSet(images, made.labels, made.num_classes)

        def public(self) -> SampleSet:
            made = super().public()
            return SampleSet(made.images // 3, made.labels, made.num_classes)

    dataset = InTwoPlaces(count=600)
    nearest = []
    for share in (0.0, 0.3):
        moment = measured(made(tmp_path / str(share)), dataset, sigma=1e-3, cells=2, cells_share=share, clip_norm=10.0)
        drawn = moment.draw(np.full(CLASSES, 200), np.random.default_rng(0)).images.astype(float)
        top = drawn[:, :4].mean((1, 2, 3)) - drawn[:, 4:].mean((1, 2, 3))
        nearest.append(float(np.minimum(abs(top), abs(top - 150)).mean()))  # 0 or 150 in every private image
    assert nearest[1] < 0.5 * nearest[0]


@pytest.mark.parametrize(("square", "sigma", "bound"), [(None, 500.0, None), (0.7, 5.0, MOST_CHANGE), (0.7, 500.0, MOST_CHANGE)])
def test_first_moments_that_are_all_noise_break_nothing(tmp_path, square, sigma, bound):
    """Their samples would be as long as the noise: the clipping norm is at most twice that of public images."""
    more = dict(sigma=sigma, cells=4, square_weight=square)
    public = measured(made(tmp_path / "public"), WithPublic(), **more).space.clip_norm
    moment = measured(made(tmp_path / "first"), WithPublic(), cells_share=0.5, **more)
    assert public / MOST_CHANGE <= moment.space.clip_norm <= public * MOST_CHANGE
    assert bound is None or moment.space.clip_norm == bound * public
    assert np.isfinite(moment.gaussians.covariances).all()
    assert moment.draw(np.full(CLASSES, 5), np.random.default_rng(0)).images.shape == (15, 8, 8, 1)


def test_dark_images_are_clipped_around_where_they_lie(tmp_path):
    """Black images with a dim corner are all far from mid-grey and near each other."""

    @dataclass(kw_only=True)
    class Dark(Grey):
        def train(self) -> SampleSet:
            made = super().train()
            return SampleSet(made.images // 8, made.labels, made.num_classes)

    located = measured(tmp_path, Dark(count=300), sigma=0.5)
    blind = measured(made(tmp_path / "blind"), Dark(count=300), sigma=0.5, location_share=0)
    assert located.space.clip_norm < 0.5 * blind.space.clip_norm
    truth = np.cov(located.space.basis.to_vectors(Dark(count=300).train().images).T)
    far = [np.linalg.norm(m.gaussians.covariances.mean(0) * m.space.clip_norm**2 - truth) for m in (located, blind)]
    assert far[0] < 0.5 * far[1]


def test_what_is_kept_is_noisy_and_a_second_start_draws_no_other_noise(tmp_path):
    dataset = Grey()
    first, second = (measured(tmp_path, dataset, sigma=2.0) for _ in range(2))
    np.testing.assert_array_equal(first.gaussians.means, second.gaussians.means)
    kept = np.load(tmp_path / "moments.npz")["sums"]
    exact = measured(made(tmp_path / "other"), dataset, sigma=1e-9)
    clean = np.load(tmp_path / "other" / "moments.npz")["sums"]
    assert exact.class_counts == pytest.approx([16, 16, 16])
    assert (kept - clean).std() == pytest.approx(2.0, rel=0.05)


def test_class_counts_are_those_of_the_moments(tmp_path):
    @dataclass(kw_only=True)
    class Uneven(Grey):
        class_counts: ClassCounts = ClassCounts.moments

        def train(self) -> SampleSet:
            made = grey(self.count * 3, first=0)
            rows = np.sort(np.concatenate([np.flatnonzero(made.labels == c)[:n] for c, n in enumerate((24, 16, 8))]))
            return made[rows]

    method = DPMoments(num_samples=60)
    session = opened(tmp_path, method, Uneven())
    samples = method.run(session.private, tiny_model()[0], session.run)
    assert np.bincount(samples.labels).tolist() == [30, 20, 10]
    assert [spend.purpose for spend in session.ledger.spends] == ["location", "moments"]


def test_methods_without_moments_refuse_their_counts():
    dataset = Grey(class_counts=ClassCounts.moments)
    with rejects("dataset.class_counts", "moments"):
        PrivateEvolution(**PE).check(dataset, model_settings(), PRIVACY)
    DPMoments(num_samples=30).check(dataset, model_settings(), PRIVACY)


def test_means_alone_where_noise_is_large_beside_a_public_covariance():
    for size, sigma, knows, square in ((60_000, 4.0, True, True), (1437, 2.9, True, False), (1437, 2.9, False, True)):
        parts = weights(size, 10, sigma, knows)
        assert (parts.square > 0) == square
        assert parts.count**2 + parts.mean**2 + parts.square**2 == pytest.approx(1)


@pytest.mark.parametrize(
    ("dataset", "key", "value"),
    [
        (Grey(), "components", 0),
        (Grey(), "cells", 8),
        (Grey(), "cells_share", 0.2),
        (WithPublic(), "cells_share", 1.0),
        (Grey(), "prior", Prior.images),
        (OtherPublic(), "prior", Prior.classes),
        (Grey(), "grey", 2.0),
        (Grey(), "quantile", 0.0),
        (Grey(), "clip_norm", 0.0),
        (Grey(), "clip_norm", 1e-320),
        (Grey(), "square_weight", 0.0),
        (Grey(), "square_weight", 1.0),
    ],
)
def test_settings_that_cannot_be_used_are_refused(dataset, key, value):
    with rejects(f"method.{key}", value):
        DPMoments(num_samples=30, **{key: value}).check(dataset, model_settings(), PRIVACY)


@dataclass(kw_only=True)
class EmptyPublicClass(Grey):
    """No public image shows its last class."""

    public_count: int = 90

    def public(self) -> SampleSet:
        made = super().public()
        return made[made.labels < CLASSES - 1]


@pytest.mark.parametrize("cells", [1, 4])
def test_a_class_that_no_public_image_shows_lets_no_private_one_through_the_noise(tmp_path, cells):
    """NaN plus noise is NaN: whether such an image is there would be told for sure."""
    moment = measured(tmp_path, EmptyPublicClass(), sigma=2.0, cells=cells)
    assert np.isfinite(np.load(tmp_path / "moments.npz")["sums"]).all()
    assert np.isfinite(moment.gaussians.means).all()
    assert (moment.class_counts > 0).all()


def test_public_images_that_are_all_alike_are_refused_before_a_private_one_is_read(tmp_path):
    @dataclass(kw_only=True)
    class Alike(Grey):
        public_count: int = 90
        closed: bool = True

        def public(self) -> SampleSet:
            made = super().public()
            return SampleSet(np.full_like(made.images, 7), made.labels, CLASSES)

    with rejects("dataset", "grey"):
        measured(tmp_path, Alike(), sigma=2.0)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_cells_are_eight_where_the_noise_is_small(tmp_path):
    assert [cells(60_000, 10, sigma) for sigma in (1.6, 1.4, 0.0)] == [1, CELLS, CELLS]
    for sigma, expected in ((1e-9, CELLS), (2.0, 1)):
        moment = measured(made(tmp_path / str(sigma)), WithPublic(), sigma=sigma)
        assert moment.space.cells == expected
        assert len(moment.gaussians.means) == CLASSES * expected
        assert moment.class_counts.shape == (CLASSES,)
    assert measured(made(tmp_path / "set"), WithPublic(), sigma=1e-9, cells=1).space.cells == 1
    assert measured(made(tmp_path / "other"), OtherPublic(), sigma=1e-9).space.cells == 1


# Warm-up

WARM: dict[str, Any] = dict(epsilon=0.5, num_samples=30, steps=3, batch_size=4, components=8)
WARMED: list[Any] = [
    DPDiffusion(**{**DP_SGD, "warm_up": WarmUp(**WARM)}),
    PrivateEvolution(**{**PE, "initial_labels": InitialLabels.matching, "warm_up": WarmUp(**WARM, degree=2)}),
]
BUDGET = Privacy(epsilon=2.0)


@pytest.mark.parametrize("method", WARMED, ids=lambda method: method.name)
def test_a_warm_up_is_its_share_of_the_budget_and_the_rest_is_the_method_s(method, tmp_path):
    dataset = WithPublic()
    method.check(dataset, model_settings(), BUDGET)
    plan = Plan.make(method, dataset, BUDGET)
    moments = next(spend for spend in plan.spends if spend.purpose == "moments")
    assert isinstance(moments.mechanism, Gaussian)
    assert gaussian_epsilon(moments.mechanism.noise_multiplier, plan.delta) == pytest.approx(0.5, rel=1e-9)
    assert 1.99 < plan.epsilon <= 2.0
    without = Plan.make(replace(method, warm_up=WarmUp()), dataset, BUDGET)
    assert (plan.noise_multiplier or 0) > (without.noise_multiplier or 0)


@pytest.mark.parametrize("method", WARMED, ids=lambda method: method.name)
def test_after_its_spend_a_warm_up_reads_no_private_image(method, tmp_path, monkeypatch):
    """The handle refuses until the warm-up is over, and its images are noise by then."""
    dataset = WithPublic()
    session, (model, _) = opened(tmp_path, method, dataset, BUDGET), tiny_model()
    real, warm = PrivateDataset.spend, WarmUp.train
    refused: list[bool] = []

    def spend(self, purpose, mechanism):
        assert not refused, "the warm-up asked for private images"
        return real(self, purpose, mechanism)

    def train(self, moment, denoiser, run, labels, conditional):
        refused.append(True)
        samples = session.private._samples
        assert samples is not None
        held = samples.images
        before = held.copy()
        held[:] = 255  # whoever still reads them makes another network
        warm(self, moment, denoiser, run, labels, conditional)
        held[:] = before
        refused.clear()

    monkeypatch.setattr(PrivateDataset, "spend", spend)
    monkeypatch.setattr(WarmUp, "train", train)
    samples = method.run(session.private, model, session.run)
    monkeypatch.undo()
    (tmp_path / "plain").mkdir()
    plain = opened(tmp_path / "plain", method, dataset, BUDGET)
    np.testing.assert_array_equal(samples.images, method.run(plain.private, tiny_model()[0], plain.run).images)


def test_a_warm_up_trains_what_the_method_trains(tmp_path):
    method = WARMED[0]
    session, (model, _) = opened(tmp_path, method, WithPublic(), BUDGET), tiny_model()
    before = {name: p.clone() for name, p in model.denoiser.network.named_parameters()}
    moment = method.warm_up.measure(session.private, model, session.run, True)
    assert moment is not None
    method.warm_up.train(moment, model.denoiser, session.run, np.arange(CLASSES), True)
    assert any((before[name] != p).any() for name, p in model.denoiser.network.named_parameters())
    assert (tmp_path / "warm_up.pt").exists()


def test_without_a_share_nothing_is_warmed_up(tmp_path):
    plan = Plan.make(DPDiffusion(**DP_SGD), WithPublic(), BUDGET)
    assert [spend.purpose for spend in plan.spends] == ["dp_sgd"]
    assert not WarmUp().spends(WithPublic(), BUDGET)


@pytest.mark.parametrize(
    ("key", "value"),
    [("epsilon", 2.0), ("epsilon", 0.0), ("steps", -1), ("noisy_from", 1.5), ("components", 0), ("batch_size", 0)],
)
def test_a_warm_up_that_cannot_be_is_refused(key, value):
    method = DPDiffusion(**{**DP_SGD, "warm_up": WarmUp(**{**WARM, key: value})})
    with rejects(f"method.warm_up.{key}", value):
        method.check(WithPublic(), model_settings(), BUDGET)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"warm_up": WarmUp(**WARM)}, "method.warm_up.degree"),
        ({"initial_labels": InitialLabels.random}, "method.initial_labels"),
    ],
)
def test_pe_says_what_its_warm_up_needs(changes, key):
    with rejects(key):
        replace(WARMED[1], **changes).check(WithPublic(), model_settings(), BUDGET)


def test_pe_warms_up_a_model_of_one_label_for_all_classes(tmp_path):
    method = replace(WARMED[1], initial_labels=InitialLabels.random)
    session = opened(tmp_path, method, WithPublic(), BUDGET)
    network = denoiser(tiny_unet(num_class_embeds=None), num_labels=1)
    model = PublicModel("one label", network, tiny_model()[0].embeddings)
    samples = method.run(session.private, model, session.run)
    assert np.bincount(samples.labels).tolist() == [4, 4, 4]


@pytest.mark.parametrize("method", WARMED, ids=lambda method: method.name)
def test_a_plan_counts_what_a_warm_up_trains_and_holds(method):
    dataset, model = WithPublic(), model_settings()
    without = replace(method, warm_up=WarmUp())
    larger = replace(method, warm_up=WarmUp(**{**WARM, "num_samples": 10**7, "degree": 2}))
    trained = [m.work(dataset, model).get("backward_calls") or 0 for m in (method, without)]
    assert trained[0] - trained[1] == WARM["steps"] * WARM["batch_size"]
    assert (method.memory(dataset, model) or 0) >= (without.memory(dataset, model) or 0)
    assert (larger.memory(dataset, model) or 0) > (without.memory(dataset, model) or 0)
    flops, each = network_work(method, dataset, model)["work"]["flops"], method.training_facts(dataset, model)["backward_flops"]
    assert flops > trained[0] * each > 0


@pytest.mark.parametrize("dataset", [WithPublic(), OtherPublic()], ids=["same classes", "others"])
def test_moment_samples_are_never_shown_at_clean_timesteps(dataset, tmp_path, monkeypatch):
    method = WARMED[0]
    session, (model, _) = opened(tmp_path, method, dataset, BUDGET), tiny_model()
    moment = method.warm_up.measure(session.private, model, session.run, True)
    black = lambda self, sizes, rng: SampleSet(  # noqa: E731
        np.zeros((sizes.sum(), *dataset.shape), np.uint8), np.repeat(np.arange(CLASSES), sizes), CLASSES
    )
    monkeypatch.setattr(type(moment), "draw", black)
    shown, predict = [], type(model.denoiser).predict_noise

    def seen(self, x, t, y):
        shown.append((x.detach(), t))
        return predict(self, x, t, y)

    monkeypatch.setattr(type(model.denoiser), "predict_noise", seen)
    method.warm_up.train(moment, model.denoiser, session.run, np.arange(CLASSES), True)
    x, t = torch.cat([x for x, _ in shown]), torch.cat([t for _, t in shown])
    early = t < method.warm_up.noisy_from * len(model.denoiser.alpha_bar)
    if isinstance(dataset, OtherPublic):
        assert not early.any()
    else:
        assert (x[early].mean((1, 2, 3)) > -0.9).all()
    assert len(x) == WARM["steps"] * WARM["batch_size"]


def test_moments_that_are_mostly_noise_are_told_where_no_image_is_public():
    few = Grey(class_counts=ClassCounts.moments)
    sigma = few.num_private / (CLASSES * VISIBLE)
    (hint,) = DPMoments().moments_hints(few, sigma * 0.89, conditional=True)
    assert "speckled" in hint
    assert not DPMoments().moments_hints(few, sigma * 0.89 * VISIBLE / CLEAR, conditional=True)
    (hint,) = DPMoments().moments_hints(few, sigma * 1.01, conditional=True)
    assert f"{few.num_private} images in {CLASSES} classes are mostly noise" in hint
    assert not DPMoments().moments_hints(few, sigma * 1.01 * VISIBLE / CLEAR, conditional=False)
    assert not DPMoments().moments_hints(WithPublic(), sigma * 1.01, conditional=True)


def test_moments_of_latents_are_those_of_what_the_model_encodes(tmp_path):
    dataset = WithPublic()
    autoencoder = Autoencoder(tiny_vae(), dataset.shape[0], 4)
    unet = tiny_unet(in_channels=2, out_channels=2, sample_size=4)
    model = PublicModel("latents", denoiser(unet, autoencoder=autoencoder), {})
    private = dataset.private()
    moment = measured(tmp_path, dataset, 1e-4, model, basis=BasisName.latents, cells=1)
    space, rows = moment.space, slice(70)  # more than a pass
    images, labels = np.concatenate([private.images] * 2)[rows], np.concatenate([private.labels] * 2)[rows]
    encoded = autoencoder.encode(images).double().numpy()
    expected = (space.basis.coefficients(encoded - space.basis.offset) - space.centres[labels]) / space.clip_norm
    expected /= np.maximum(1, np.linalg.norm(expected, axis=1, keepdims=True))
    placed, groups = space.place(images, labels)
    np.testing.assert_allclose(placed, expected, atol=1e-4)
    assert groups.tolist() == labels.tolist()
    alone, beside = (_encoded(model.denoiser, some) for some in (images[:3], images))
    np.testing.assert_array_equal(alone, beside[:3])  # whatever is beside it
    alone, _ = space.place(images[:3], labels[:3])  # but for the rounding of BLAS, which multiplies three rows in another way
    np.testing.assert_allclose(alone, placed[:3], rtol=0, atol=1e-12)
    drawn = moment.draw(np.full(CLASSES, 5), np.random.default_rng(0))
    assert drawn.images.shape == (5 * CLASSES, *dataset.shape)
    assert not DPMoments().uses_model
    assert DPMoments(basis=BasisName.latents).uses_model


def test_latents_need_an_autoencoder_and_public_images():
    with rejects("method.basis", "latents", "no autoencoder"):
        DPMoments(num_samples=30, basis=BasisName.latents).check(
            WithPublic(class_counts=ClassCounts.uniform), model_settings(), PRIVACY
        )
    random_weights = composed_model("model=latent_unet", "model.pretrained=null", "model.features=null")
    with rejects("model.pretrained", None, "public autoencoder"):
        DPMoments(num_samples=30, basis=BasisName.latents).check(WithPublic(), random_weights, PRIVACY)
