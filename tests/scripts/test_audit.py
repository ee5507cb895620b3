"""Audits of the methods as they are, which stay below the claim, and of broken ones, which do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.clipping import largest_contribution
from audit.statistics import game
from audit.training import CanaryProbe
from audit.votes import Remembered, play
from conf.help import run_script
from data.samples import SampleSet
from dp_finetune.engines import ENGINES, EngineName
from dp_finetune.method import DPDiffusion
from dp_finetune.objective import Objective
from dp_finetune.optimizer import PrivateOptimizer
from dp_finetune.per_example import dense
from dp_finetune.training import Trainer
from mean_embedding.features import FourierFeatures
from models.diffusion.timesteps import Interval
from models.ema import trainable
from pe import evolution
from pe.evolution import PrivateEvolution
from pe.histogram import VoteNoise
from privacy.accounting import Accountant, compose_epsilon
from privacy.config import Privacy
from privacy.gaussian import gaussian_epsilon
from privacy.inherited import Inherited
from privacy.mechanisms import Gaussian, SampledGaussian, Spend
from privacy.noise import NoiseSource, NoiseStream
from scripts import audit
from tests.rejects import assert_line, rejects
from tests.toy import Cloud, denoiser, start, tiny_unet, toy

TRAIN = ["canaries=96", "dataset.fraction=0.01", "method.steps=2", "method.sample_rate=0.9", "method.augmult=1"]
TRAIN += ["method.gradient_engine=batched", "device=cpu", "privacy.accountant=rdp", "privacy.noise_seed=1", "privacy.epsilon=1"]


def audited(*overrides: str) -> dict[str, Any]:
    """The report of an audit in the working directory, and whether the command said that the claim is refuted."""
    try:
        audit.main([*overrides, "out=audited"])
        refuted = False
    except SystemExit as end:
        refuted = "the claim is refuted" in str(end.code)
    report = json.loads(Path("audited", "internal", "audit.json").read_text())
    too_long = (report["largest_contribution"] or 0) > 1
    assert report["refuted"] == refuted == (report["lower_bound"] > report["claimed_epsilon"] or too_long)
    return report


# DP training


def no_noise(self: PrivateOptimizer) -> None:
    for p in self.params:
        p.grad = p.summed_grad.to(p.dtype)


def no_clipping(self: PrivateOptimizer) -> None:
    for p in self.params:
        total = dense(p.grad_sample).sum(0)
        p.summed_grad = total if p.summed_grad is None else p.summed_grad.add_(total)


def a_tenth_of_the_noise(self: PrivateOptimizer) -> None:
    self.noise_multiplier, kept = self.noise_multiplier / 10, self.noise_multiplier
    add_noise(self)
    self.noise_multiplier = kept


add_noise = PrivateOptimizer.add_noise
BROKEN = [("add_noise", no_noise), ("clip_and_accumulate", no_clipping), ("add_noise", a_tenth_of_the_noise)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("method", ["dp_diffusion", "dp_loda"])
def test_intact_training_is_not_refuted_and_its_claim_is_what_the_ledger_composes(method):
    report = audited(f"method={method}", *TRAIN)
    assert not report["refuted"]
    assert 1 - 1e-6 < report["largest_contribution"] <= 1
    assert report["largest_bound_possible"] > report["claimed_epsilon"]  # it could have been
    lines = Path("audited", "internal", "checkpoints", "ledger.jsonl").read_text().splitlines()
    sigma = json.loads(lines[0])["noise_multiplier"]
    assert [json.loads(line)["purpose"] for line in lines] == ["dp_sgd/step=1", "dp_sgd/step=2"]
    assert report["claimed_epsilon"] <= 1
    other = compose_epsilon([Spend("dp_sgd", SampledGaussian(sigma, 0.9), 2)], 1e-5, Accountant.rdp)
    assert report["claimed_epsilon"] == pytest.approx(other)
    assert not Path("audited", "release").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("what", "broken"), BROKEN)
def test_broken_training_is_refuted(monkeypatch, what, broken):
    monkeypatch.setattr(PrivateOptimizer, what, broken)
    report = audited("method=dp_diffusion", *TRAIN)
    assert report["refuted"]
    assert report["correct"] / report["guesses"] > 0.9


def one_percent_too_long(self: PrivateOptimizer) -> None:
    kept = self.max_grad_norm
    if max(p.numel() for p in self.params) > 1e7:
        self.max_grad_norm *= 1.01
    clip_and_accumulate(self)
    self.max_grad_norm = kept


clip_and_accumulate = PrivateOptimizer.clip_and_accumulate


@pytest.mark.usefixtures("here")
def test_a_clip_that_is_one_percent_too_long_in_a_large_tensor_is_refuted_though_no_canary_shows_it(monkeypatch):
    monkeypatch.setattr(PrivateOptimizer, "clip_and_accumulate", one_percent_too_long)
    report = audited("method=dp_diffusion", *TRAIN)
    assert report["lower_bound"] < report["claimed_epsilon"]
    assert report["largest_contribution"] == pytest.approx(1.01)
    assert report["refuted"]


@pytest.mark.parametrize("engine", [*ENGINES, EngineName.auto])
def test_clipping_as_it_is_adds_the_clipping_norm_and_no_more(engine):
    method = DPDiffusion(gradient_engine=engine, augmult=2, batch_size=2, max_grad_norm=0.3)
    assert 1 - 1e-6 < largest_contribution(method, CLOUD, torch.device("cpu"), side=512) <= 1


TWO_GOES = ["method=dp_diffusion", *TRAIN, "privacy.epsilon=null", "privacy.noise_multiplier=5", "base_noise_multiplier=0.05"]


@pytest.mark.usefixtures("here")
def test_a_model_that_is_trained_in_two_goes_is_not_refuted_as_its_claim_holds_both():
    report = audited(*TWO_GOES)
    first, second = report["mechanisms"]
    assert first["purpose"].startswith("base:")
    assert (first["noise_multiplier"], second["noise_multiplier"]) == (0.05, 5)
    assert report["lower_bound"] > 2
    assert not report["refuted"]


@pytest.mark.usefixtures("here")
def test_a_base_that_has_spent_and_passes_for_public_is_refuted(monkeypatch):
    monkeypatch.setattr(Inherited, "of", lambda inputs, other_data=False: Inherited())
    report = audited(*TWO_GOES)
    assert [mechanism["purpose"] for mechanism in report["mechanisms"]] == ["dp_sgd"]
    assert report["claimed_epsilon"] < 2
    assert report["refuted"]


@pytest.mark.usefixtures("here")
def test_less_noise_lets_more_be_found_at_the_same_coins():
    report = audited("method=dp_diffusion", *TRAIN, "privacy.epsilon=null", "privacy.noise_multiplier=0.5")
    assert not report["refuted"]
    assert report["lower_bound"] > 1  # the same coins, where the noise of epsilon = 1 shows nothing


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_canary_points_along_its_own_weight_which_nobody_else_touches(engine):
    unet, k = tiny_unet(), 2
    probe = CanaryProbe(unet, first=11, canaries=3)
    labels = torch.tensor([12, 4, 13, 10])  # two canaries, an ordinary label, the null label
    mixture = [Interval(weight=1.0, low=0, high=100)]
    objective = Objective(denoiser(probe, alpha_bar=np.linspace(0.99, 0.01, 100)), mixture, k, [], 0.0, NoiseSource(bytes(32)))
    gradients = []
    for i in range(len(labels)):
        run = ENGINES[engine](probe, k, k)
        run(objective.views(torch.randn(1, 1, 8, 8), labels[i : i + 1], [i], step=1))
        parts = {name: dense(p.grad_sample).flatten() for name, p in trainable(probe).items()}  # type: ignore[attr-defined]
        own = parts.pop("weights.weight")
        gradients.append((own, torch.cat(list(parts.values()))))
        for p in probe.parameters():
            p.grad_sample = None  # type: ignore[attr-defined]
    for i, coordinate in ((0, 2), (2, 3)):
        own, rest = gradients[i]
        assert own.nonzero().flatten().tolist() == [coordinate]
        assert own[coordinate] > 20 * rest.norm()  # of the clipped gradient, 99.9 % of the norm
    for i in (1, 3):
        own, rest = gradients[i]
        assert not own.any()
        assert rest.any()


def test_other_images_see_the_same_network_with_a_probe_as_without():
    unet, x, t = tiny_unet(), torch.randn(3, 1, 8, 8), torch.tensor([3, 5, 7])
    labels = torch.tensor([0, 4, 10])
    assert torch.equal(CanaryProbe(unet, 11, 5)(x, t, labels).sample, unet(x, t, labels).sample)


# Private Evolution

CLOUD = toy([(200, 60), (40, 200)], [30, 30])
ONCE: dict[str, Any] = dict(
    num_samples=4, iterations=1, lookahead=0, threshold=1, variation_degrees=[1], noise=VoteNoise.gaussian
)
TWICE = {**ONCE, "iterations": 2, "variation_degrees": [1, 1]}


@pytest.fixture
def no_disk(monkeypatch) -> None:
    """Ledgers of hundreds of runs need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def found(folder: Path, sigma: float, delta: float, runs: int, **settings: Any) -> tuple[float, float]:
    """The lower bound of a game, and what each of its runs claims."""
    method = PrivateEvolution(**settings)
    model = start(method, CLOUD, folder, sigma).model
    scores: dict[bool, list[float]] = {True: [], False: []}
    privacy = Privacy(noise_multiplier=sigma, delta=delta)
    for score, inside, ledger in play(method, CLOUD, model, (1, 2, 1), privacy, runs, NoiseSource(bytes(32)), folder, 0):
        scores[inside].append(score)
        assert ledger.spends == [Spend("pe.votes", Gaussian(sigma), method.iterations)]
    claimed = gaussian_epsilon(sigma, delta, rounds=method.iterations)
    return game(np.array(scores[True]), np.array(scores[False]), delta, 0.95).lower_bound, claimed


@pytest.mark.usefixtures("no_disk")
def test_intact_votes_are_not_refuted_and_much_of_their_epsilon_is_found(tmp_path):
    bound, claimed = found(tmp_path, sigma=0.7, delta=1e-2, runs=400, **TWICE)
    assert 1 < bound < claimed


@pytest.mark.usefixtures("no_disk")
def test_votes_without_noise_are_refuted(tmp_path, monkeypatch):
    monkeypatch.setattr(evolution, "noisy_votes", lambda votes, kind, sigma, noise, parts: votes.astype(float))
    bound, claimed = found(tmp_path, sigma=2.0, delta=1e-2, runs=100, **TWICE)
    assert bound > claimed


@pytest.mark.usefixtures("no_disk")
def test_votes_counted_twice_are_refuted(tmp_path, monkeypatch):
    """At a delta at which few runs see most of the loss: a claim holds for every delta."""
    count = evolution.count_votes
    monkeypatch.setattr(evolution, "count_votes", lambda *args: 2 * count(*args))
    bound, claimed = found(tmp_path, sigma=2 / 3, delta=0.2, runs=400, **ONCE)
    assert bound > claimed


def test_a_remembered_answer_is_the_api_s_own_and_is_asked_for_once():
    api, labels = Cloud(), np.arange(3)
    remembered, forgetful = Remembered(api), Remembered(Cloud(), room=0)
    first = [remembered.random(labels, stream="a") for _ in range(2)]
    assert np.array_equal(first[0], Cloud().random(labels, stream="a"))
    assert np.array_equal(first[0], first[1])
    for degree in (2.0, 3.0, 2.0):
        told = remembered.variation(first[0], labels, degree, stream="b", respacing=None)
        assert np.array_equal(told, Cloud().variation(first[0], labels, degree, stream="b"))
        assert np.array_equal(told, forgetful.variation(first[0], labels, degree, stream="b"))
    assert len(api.calls) == 3


@pytest.mark.usefixtures("here")
def test_the_command_plays_the_game_on_the_real_model():
    report = audited("method=pe", "repetitions=8", "privacy.accountant=rdp", "device=cpu", "model.respacing='4'")
    assert (report["runs"], report["guesses"], report["refuted"], report["largest_contribution"]) == (8, 4, False, None)
    assert [entry["count"] for entry in report["mechanisms"]] == [2]
    assert not list(Path("audited", "internal", "checkpoints").iterdir())


# The command


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("override", "setting"),
    [
        ("method=public_only", "method=public_only"),
        ("canaries=5", "canaries=5"),
        ("canarys=5", "canarys"),
        ("confidence=95", "confidence=95.0"),
        ("method.conditional=false", "method.conditional=false"),
        ("method.sample_rate=2", "method.sample_rate=2.0"),
        ("privacy.noise_multiplier=1", "privacy.epsilon=3.0"),
        ("device=tpu", "device=tpu"),
        ("out=full", "out=full"),
        ("out=full/file", "out=full/file"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_leaves_nothing(override, setting, monkeypatch, capsys):
    Path("full").mkdir()
    Path("full", "file").touch()
    monkeypatch.setattr("sys.argv", ["audit", override])
    with pytest.raises(SystemExit) as end:
        run_script(audit.main)
    assert end.value.code == 2
    assert_line(capsys.readouterr().err, setting)
    assert [path.as_posix() for path in Path().rglob("*")] == ["full", "full/file"]


@pytest.mark.usefixtures("here")
def test_a_killed_audit_leaves_no_result_and_its_folder_is_not_taken_for_another(monkeypatch):
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "one_run", killed)
    with pytest.raises(KeyboardInterrupt):
        audit.main(["method=dp_diffusion", *TRAIN, "canaries=32", "method.steps=1", "out=killed"])
    assert not Path("killed", "internal", "audit.json").exists()
    with rejects("out", "killed"):
        audit.main(["method=dp_diffusion", *TRAIN, "out=killed"])


# DP moments

MOMENTS = ["method=dp_moments", "dataset.fraction=0.05", "method.components=8", "repetitions=160", "privacy.epsilon=1"]


@pytest.mark.parametrize("prior", ["classes", "none"])
def test_the_moments_stay_below_their_claim(here, prior):
    report = audited(*MOMENTS, f"method.prior={prior}")
    assert (report["method"], report["runs"], report["refuted"]) == ("dp_moments", 160, False)


@pytest.mark.parametrize(
    ("prior", "purpose", "times"), [("classes", "moments", 30), ("none", "moments", 30), ("none", "location", 100)]
)
def test_moments_with_a_part_of_the_noise_are_refuted(here, monkeypatch, prior, purpose, times):
    with_less_noise(monkeypatch, purpose, times)
    assert audited(*MOMENTS, f"method.prior={prior}")["refuted"]


def with_less_noise(monkeypatch: pytest.MonkeyPatch, purpose: str, times: float) -> None:
    whole, stream = NoiseStream.gaussian, NoiseSource.stream

    def named(self: NoiseSource, wanted: str) -> NoiseStream:
        out = stream(self, wanted)
        if wanted == purpose:
            monkeypatch.setattr(out, "gaussian", lambda sigma, size: whole(out, sigma / times, size), raising=False)
        return out

    monkeypatch.setattr(NoiseSource, "stream", named)


# Mean embeddings

FEW = ["dataset.fraction=0.05", "repetitions=160", "privacy.epsilon=1"]
EMBEDDINGS = {
    "dp_merf": ["method=dp_merf", "method.num_features=100", *FEW],
    "dp_mepf": ["method=dp_mepf", "method.embedding=pixels", *FEW],
}


@pytest.mark.parametrize("method", EMBEDDINGS)
def test_a_mean_embedding_stays_below_its_claim_and_with_a_hundredth_of_the_noise_is_refuted(here, monkeypatch, method):
    report = audited(*EMBEDDINGS[method])
    assert (report["method"], report["runs"], report["refuted"]) == (method, 160, False)
    Path("audited").rename("intact")
    with_less_noise(monkeypatch, "mean_embedding", 100)
    assert audited(*EMBEDDINGS[method])["refuted"]


def test_features_that_are_longer_than_one_are_refuted(here, monkeypatch):
    short = FourierFeatures.of_images
    monkeypatch.setattr(FourierFeatures, "of_images", lambda self, images: 100 * short(self, images))
    assert audited(*EMBEDDINGS["dp_merf"])["refuted"]


def test_a_warm_up_is_not_audited_with_what_follows_it(here):
    with rejects("method.warm_up.epsilon", 0.5):
        audit.main(["method=pe", "method.warm_up.epsilon=0.5", "out=audited"])


# Users of many images

USERS = ["privacy.unit=user", "dataset.made_up_users=3", "images_each=20"]
GAMES = {
    "dp_moments": [*MOMENTS, *USERS],
    "dp_merf": [*EMBEDDINGS["dp_merf"], *USERS],
    "dp_mepf": [*EMBEDDINGS["dp_mepf"], *USERS],
    "pe": ["method=pe", *USERS, "dataset.fraction=0.02", "method.num_samples=10", "method.iterations=1",
           "method.variation_degrees=[3]", "method.lookahead=0", "method.threshold=0", "repetitions=160", "privacy.epsilon=2"],
}  # fmt: skip


@pytest.mark.parametrize("method", GAMES)
def test_a_planted_user_does_not_refute_the_claim(here, method):
    report = audited(*GAMES[method])
    assert (report["unit"], report["refuted"]) == ("user", False)


@pytest.mark.parametrize(
    ("method", "attribute"), [("dp_moments", "images_of_unit"), ("dp_merf", "images_of_unit"), ("pe", "whole_shares")]
)
def test_a_vote_for_each_image_of_a_user_is_refuted(here, monkeypatch, method, attribute):
    of_each = {
        "images_of_unit": lambda self: np.ones(len(self), np.int64),
        "whole_shares": lambda self: np.full(len(self), self.parts),
    }
    monkeypatch.setattr(SampleSet, attribute, property(of_each[attribute]))
    assert audited(*GAMES[method])["refuted"]


def test_training_on_planted_users_stays_below_its_claim(here):
    report = audited("method=dp_diffusion", *TRAIN, *USERS)
    assert (report["unit"], report["refuted"], report["canaries"]) == ("user", False, 96)


def test_a_clipped_gradient_for_each_image_of_a_user_is_refuted(here, monkeypatch):
    def of_each(self: Trainer, samples: SampleSet, rows: np.ndarray, step: int) -> np.ndarray:
        self.known = samples  # type: ignore[attr-defined]
        return images_of(self, samples, rows, step)

    def added(self: Trainer, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, step: int) -> None:
        samples = self.known  # type: ignore[attr-defined]
        every = [(image, label[:1], row) for row, label in zip(rows, labels, strict=True) for image in samples.units[row]]
        size = self.engine.examples_per_pass
        for first in range(0, len(every), size):
            of, told, whose = zip(*every[first : first + size], strict=True)
            add(self, samples.images[list(of)][:, None], np.array(told), np.array(whose), step)

    images_of, add = Trainer.images_of, Trainer.add
    monkeypatch.setattr(Trainer, "images_of", of_each)
    monkeypatch.setattr(Trainer, "add", added)
    assert audited("method=dp_diffusion", *TRAIN, *USERS)["refuted"]


def test_a_canary_user_without_images_is_refused(here):
    with rejects("images_each", 0):
        audit.main([*GAMES["dp_moments"], "images_each=0", "out=audited"])
