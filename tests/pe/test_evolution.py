"""Private Evolution as an algorithm, on points of the plane: parents, lookahead, labels, resuming, cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from diffusers import UNet2DModel

from data.rounds import first, kept_rounds
from data.samples import SampleSet
from pe.embedded import PrivateEmbeddings
from pe.evolution import InitialLabels, PrivateEvolution
from pe.histogram import VoteNoise
from pipeline.plan import Plan
from privacy.accounting import compose_epsilon
from privacy.config import Privacy
from privacy.mechanisms import DiscreteGaussian, Spend
from tests.command import bytes_of, typed
from tests.facts import FACTS, gaussian_rows
from tests.toy import Cloud, Plane, Start, Toy, start, toy

NO_NOISE = 0.05  # discrete Gaussian noise of this sigma is 0, except with probability e^-200

ONE_CLOUD = toy([(200, 60)], [400])
TWO_CLASSES = toy([(200, 60), (40, 200)], [300, 300])


def evolution(iterations: int = 2, degree: float = 4, **settings: Any) -> PrivateEvolution:
    defaults: dict[str, Any] = {"num_samples": 30, "lookahead": 1, "threshold": 0, "variation_degrees": [degree] * iterations}
    return PrivateEvolution(**{**defaults, "iterations": iterations, **settings})


def run(method: PrivateEvolution, dataset: Toy, folder: Path, sigma: float = 1.0, api: Cloud | None = None) -> SampleSet:
    folder.mkdir(exist_ok=True)
    one = start(method, dataset, folder, sigma, api=api)
    return method.run(one.private, one.model, one.run)


def vote(method: PrivateEvolution, population: SampleSet, one: Start) -> np.ndarray:
    points = method.look_ahead(population, one.api, Plane(), 1, one.run, lambda _: None)
    return method.vote(population, points, one.private, PrivateEmbeddings(Plane(), (1, 2, 1)), 1, one.run)


def equal(a: SampleSet, b: SampleSet) -> bool:
    assert a.public_labels is not None
    assert b.public_labels is not None
    pairs = (a.images, b.images), (a.labels, b.labels), (a.public_labels, b.public_labels)
    return a.num_classes == b.num_classes and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


# Parents and offspring


def offspring_of_groups(votes_by_group: list[list[float]], folder: Path) -> tuple[np.ndarray, Any]:
    """How often each of three groups of 1,000 (rows: classes) is chosen; an image says its group, variations change nothing."""
    classes, groups = len(votes_by_group), np.tile(np.repeat(np.arange(3), 1000), len(votes_by_group))
    labels = np.repeat(np.arange(classes), 3000)
    images = np.stack([groups, groups], -1).astype(np.uint8).reshape(-1, 1, 2, 1)
    population = SampleSet(images, labels, classes, groups.copy())
    method, votes = evolution(degree=0), np.asarray(votes_by_group, float)[labels, groups]
    one = start(method, TWO_CLASSES, folder)
    with np.errstate(all="raise"):
        born = method.offspring(population, votes, one.api, 1, one.run, lambda _: None)
    assert np.array_equal(born.labels, labels)
    assert born.public_labels is not None
    assert np.array_equal(born.public_labels, born.images[:, 0, 0, 0])  # each offspring has its parent's public label
    chosen = np.stack([np.bincount(born.images[labels == c, 0, 0, 0], minlength=3) for c in range(classes)])
    return chosen, one.tracker.lines


def test_parents_are_drawn_in_proportion_to_votes_within_each_class(tmp_path):
    chosen, _ = offspring_of_groups([[0, 1, 3], [8.5, 0, 8.5]], tmp_path)
    assert chosen[0, 0] == chosen[1, 1] == 0
    assert chosen.sum(1).tolist() == [3000, 3000]
    assert chosen[0, 1] == pytest.approx(750, abs=120)  # 5 standard deviations
    assert chosen[1, 0] == pytest.approx(1500, abs=140)


def test_a_class_without_votes_draws_its_parents_uniformly_and_says_so(tmp_path, capsys):
    chosen, lines = offspring_of_groups([[0, 0, 0], [1, 0, 0]], tmp_path)
    assert chosen[0] == pytest.approx([1000, 1000, 1000], abs=130)
    assert chosen[1].tolist() == [3000, 0, 0]
    assert lines == [{"pe/class_without_votes": 0, "step": 1, "internal": False}]
    assert "round 1, class 0: no vote above the threshold" in capsys.readouterr().err


def test_all_votes_clipped_away_still_gives_a_release(tmp_path, capsys):
    one = start(method := evolution(threshold=1e6), TWO_CLASSES, tmp_path)
    with np.errstate(all="raise"):
        samples = method.run(one.private, one.model, one.run)
    assert len(samples) == 30
    assert sum("pe/class_without_votes" in line for line in one.tracker.lines) == 2 * 2
    assert "nan" not in json.dumps(one.tracker.lines).lower()
    assert capsys.readouterr().err.count("no vote above the threshold") == 4


# Labels


def test_public_labels_are_inherited_and_private_labels_kept(tmp_path):
    samples = run(evolution(degree=0, iterations=3, initial_labels=InitialLabels.random), TWO_CLASSES, tmp_path)
    assert samples.public_labels is not None
    assert np.array_equal(samples.public_labels, samples.images[:, 0, 1, 0] % 3)  # as the API made them at birth
    assert samples.labels.tolist() == [0] * 15 + [1] * 15
    assert len(np.unique(samples.public_labels)) > 1


def test_the_api_is_always_asked_for_the_public_label_of_the_image(tmp_path):
    one = start(method := evolution(degree=0, iterations=2, expansions=1, expansion_degree=0), TWO_CLASSES, tmp_path)
    method.run(one.private, one.model, one.run)
    for call, images in zip(one.api.calls, one.api.outputs, strict=True):
        assert np.array_equal(call["labels"], images[:, 0, 1, 0] % 3)


def test_matching_labels_start_each_private_class_from_the_public_label_of_its_number(tmp_path):
    samples = run(evolution(degree=0, initial_labels=InitialLabels.matching), TWO_CLASSES, tmp_path)
    assert samples.public_labels is not None
    assert np.array_equal(samples.public_labels, samples.labels)


def test_random_birth_labels_cover_the_public_labels_and_not_only_the_private_classes(tmp_path):
    samples = run(evolution(num_samples=300, threshold=1e6), TWO_CLASSES, tmp_path)
    assert set(np.unique(cast(np.ndarray, samples.public_labels))) == {0, 1, 2}


# Calls of the API


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_round_with_lookahead_k_calls_the_api_k_plus_one_times(tmp_path, k):
    one = start(method := evolution(iterations=3, lookahead=k), ONE_CLOUD, tmp_path)
    method.run(one.private, one.model, one.run)
    assert [call["kind"] for call in one.api.calls] == ["random"] + ["variation"] * 3 * (k + 1)
    assert len({call["stream"] for call in one.api.calls}) == len(one.api.calls)  # fresh randomness for each
    assert all(len(images) == 30 for images in one.api.outputs)


@pytest.mark.parametrize("k", [1, 4])
def test_lookahead_embeds_an_image_as_the_mean_of_its_k_variations(k, tmp_path):
    population, one = ONE_CLOUD.private()[:20], start(method := evolution(lookahead=k), ONE_CLOUD, tmp_path)
    population.public_labels = population.labels
    points = method.look_ahead(population, one.api, Plane(), 1, one.run, lambda _: None)
    assert points.dtype == np.float32
    assert points == pytest.approx(np.mean([Plane().embed(images) for images in one.api.outputs], axis=0))
    assert len(one.api.calls) == k


def test_without_lookahead_an_image_is_embedded_itself(tmp_path):
    population, one = ONE_CLOUD.private()[:20], start(method := evolution(lookahead=0), ONE_CLOUD, tmp_path)
    points = method.look_ahead(population, one.api, Plane(), 1, one.run, lambda _: None)
    assert np.array_equal(points, Plane().embed(population.images))
    assert not one.api.calls


def test_each_round_uses_its_own_degree_and_respacing(tmp_path):
    method = evolution(
        iterations=3, variation_degrees=[9, 7, 5], respacings=["20", "ddim10", "40"], expansions=1, expansion_degree=2
    )
    one = start(method, ONE_CLOUD, tmp_path)
    method.run(one.private, one.model, one.run)
    used = [(call["degree"], call["respacing"]) for call in one.api.calls[1:]]
    assert used == [(9, "20")] * 2 + [(7, "ddim10")] * 2 + [(5, "40")] * 2 + [(2, None)]


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_the_plan_announces_exactly_the_network_calls_of_a_run(tmp_path, monkeypatch, guidance):
    calls, forward = [], UNet2DModel.forward

    def counted(self, x, *rest):
        calls.append(len(x))
        return forward(self, x, *rest)

    monkeypatch.setattr(UNet2DModel, "forward", counted)
    config = typed(
        "method=public_only", "model.respacing='4'", f"model.guidance={guidance}", "method.num_samples=20", "device=cpu"
    )
    schedule: dict[str, Any] = {
        "variation_degrees": [3, 2],
        "respacings": ["4", "ddim10"],
        "expansions": 2,
        "expansion_degree": 1,
    }
    method = evolution(num_samples=64, conditional=False, lookahead=2, **schedule)  # 64: passes of whole batches
    one = start(method, config.dataset, tmp_path)
    method.run(one.private, config.model.build(config.dataset, config.torch_device, 0), one.run)
    assert sum(calls) == method.work(config.dataset, config.model)["network_calls"]


# Size and classes of the release


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_expansions_give_whole_copies_of_the_population_with_its_labels(tmp_path, copies):
    method = evolution(expansions=copies, expansion_degree=3)
    one = start(method, TWO_CLASSES, tmp_path)
    samples = method.run(one.private, one.model, one.run)
    population = SampleSet.load(tmp_path / "population.npz")
    assert samples.public_labels is not None
    assert len(samples) == 30 * (1 + copies)
    assert np.array_equal(samples.images[:30], population.images)
    assert np.array_equal(samples.labels, np.tile(population.labels, 1 + copies))
    assert np.array_equal(samples.public_labels, np.tile(cast(np.ndarray, population.public_labels), 1 + copies))
    assert len(np.unique(samples.images.reshape(1 + copies, -1), axis=0)) == 1 + copies  # each copy varies anew


def test_expansions_cost_no_privacy(tmp_path):
    assert evolution(expansions=5, expansion_degree=3).spends(1.0, ONE_CLOUD, Privacy()) == evolution().spends(
        1.0, ONE_CLOUD, Privacy()
    )


def test_without_classes_there_is_one_label_and_every_image_votes(tmp_path):
    one = start(method := evolution(conditional=False), TWO_CLASSES, tmp_path, NO_NOISE)
    samples = method.run(one.private, one.model, one.run)
    assert samples.num_classes == 1
    assert not samples.labels.any()
    assert [line["pe/noisy_votes"] for line in one.tracker.lines] == [600, 600]


def test_with_classes_an_image_votes_in_its_own_class_alone(tmp_path):
    """Both generated images sit on the other class's private images; each still gets its own class's votes."""
    dataset = toy([(200, 60), (40, 200)], [300, 100])
    images = np.array([[40, 200], [200, 60], [190, 70]], np.uint8).reshape(-1, 1, 2, 1)
    population = SampleSet(images, np.array([0, 1, 1]), 2, np.zeros(3, np.int64))
    one = start(method := evolution(lookahead=0), dataset, tmp_path, NO_NOISE)
    votes = vote(method, population, one)
    assert votes[0] == 300
    assert votes[1:].sum() == 100


def test_only_noisy_votes_are_logged(tmp_path):
    one = start(method := evolution(lookahead=0), ONE_CLOUD, tmp_path, sigma=20.0)
    votes = vote(method, ONE_CLOUD.private()[:30], one)
    assert one.tracker.lines == [
        {"pe/noisy_votes": votes.sum(), "pe/images_with_votes": (votes > 0).sum(), "step": 1, "internal": False}
    ]
    assert votes.sum() != 400


# Evolution


@pytest.mark.parametrize("noise", list(VoteNoise))
def test_the_population_moves_to_the_private_distribution(tmp_path, noise):
    schedule = [40.0, 25, 15, 10, 6, 4]
    method = evolution(iterations=6, num_samples=100, variation_degrees=schedule, threshold=4, lookahead=2, noise=noise)
    one = start(method, TWO_CLASSES, tmp_path, sigma=2.0)
    labels, distances = np.repeat([0, 1], 50), []
    centres = np.array([[200, 60], [40, 200]])[labels]
    for _, population in method.evolve(one.private, one.api, Plane(), labels, one.run):
        distances.append(np.linalg.norm(Plane().embed(population.images) - centres, axis=1).mean())
    assert distances[0] > 80  # where chance put it
    assert distances[-1] < 15
    assert min(distances) == distances[-1]


def test_votes_of_pure_noise_do_not_find_the_private_distribution(tmp_path):
    method = evolution(iterations=6, num_samples=100, variation_degrees=[40.0, 25, 15, 10, 6, 4], conditional=False)
    samples = run(method, ONE_CLOUD, tmp_path, sigma=1e4)
    assert np.linalg.norm(Plane().embed(samples.images) - [200, 60], axis=1).mean() > 60


# Resuming

RESUMED = dict(iterations=3, lookahead=1, expansions=2, expansion_degree=2)  # 1 + 3 · 2 + 2 = 9 calls of the API


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> SampleSet:
    return run(evolution(**RESUMED), TWO_CLASSES, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("lost_call", range(9))
def test_a_run_that_lost_any_call_resumes_to_the_same_release_and_spends_nothing_twice(tmp_path, uninterrupted, lost_call):
    method = evolution(**RESUMED)
    with pytest.raises(ConnectionError):
        run(method, TWO_CLASSES, tmp_path, api=Cloud(fail_at=lost_call))
    one = start(method, TWO_CLASSES, tmp_path)
    assert equal(method.run(one.private, one.model, one.run), uninterrupted)
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 3
    assert one.ledger.spends == [Spend("pe.votes", DiscreteGaussian(1.0), 3)]
    assert one.ledger.epsilon == compose_epsilon(
        method.spends(1.0, TWO_CLASSES, Privacy()), Privacy().delta_for(TWO_CLASSES.num_private)
    )


def test_a_run_may_be_interrupted_again_and_again(tmp_path, uninterrupted):
    method, interruptions = evolution(**RESUMED), 0
    for _ in range(10):
        try:
            samples = run(method, TWO_CLASSES, tmp_path, api=Cloud(fail_at=2))  # two calls succeed in each start: one round
            break
        except ConnectionError:
            interruptions += 1
    assert interruptions >= 3
    assert equal(samples, uninterrupted)


def test_a_resumed_run_repeats_no_finished_round(tmp_path):
    method = evolution(iterations=3)
    with pytest.raises(ConnectionError):
        run(method, TWO_CLASSES, tmp_path, api=Cloud(fail_at=5))  # in round 3
    one = start(method, TWO_CLASSES, tmp_path)
    method.run(one.private, one.model, one.run)
    assert [call["stream"] for call in one.api.calls] == ["pe/round=3/lookahead=0", "pe/round=3/offspring"]


@pytest.mark.parametrize("kept_bytes", [0, 40])
def test_rounds_in_a_checkpoint_are_spent_whatever_became_of_the_ledger(tmp_path, kept_bytes):
    method, ledger = evolution(**RESUMED), tmp_path / "ledger.jsonl"
    with pytest.raises(ConnectionError):
        run(method, TWO_CLASSES, tmp_path, api=Cloud(fail_at=5))
    ledger.write_bytes(ledger.read_bytes()[:kept_bytes])
    one = start(method, TWO_CLASSES, tmp_path)
    method.run(one.private, one.model, one.run)
    assert one.ledger.spends == [Spend("pe.votes", DiscreteGaussian(1.0), 3)]


@pytest.mark.parametrize("kept_bytes", [0, 100])
def test_a_damaged_checkpoint_is_started_over_to_the_same_release(tmp_path, uninterrupted, kept_bytes):
    method, checkpoint = evolution(**RESUMED), tmp_path / "population.npz"
    with pytest.raises(ConnectionError):
        run(method, TWO_CLASSES, tmp_path, api=Cloud(fail_at=5))
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept_bytes])
    assert equal(run(method, TWO_CLASSES, tmp_path), uninterrupted)
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 3


# What is kept for pictures


def test_every_round_keeps_its_population_and_noisy_votes_and_no_exact_ones(tmp_path):
    one = start(method := evolution(**RESUMED), TWO_CLASSES, tmp_path, sigma=20.0)
    samples = method.run(one.private, one.model, one.run)
    rounds = list(kept_rounds(tmp_path))
    assert [line["pe/noisy_votes"] for line in one.tracker.lines if "pe/noisy_votes" in line] == [
        kept.noisy_votes.sum() for kept in rounds[:3]
    ]
    assert rounds[3].votes is None
    rows = np.concatenate(first(samples.labels[:30]))
    assert np.array_equal(rounds[3].images(rows), samples.images[:30][rows])
    assert np.array_equal(rounds[0].images(rows), one.api.outputs[0][rows])
    assert len(one.ledger.spends) == 1  # no further touch


@pytest.mark.parametrize("lost_call", [2, 3, 6, 8])
def test_a_resumed_run_keeps_the_same_rounds(tmp_path, lost_call):
    method = evolution(**RESUMED)
    run(method, TWO_CLASSES, whole := tmp_path / "whole")
    with pytest.raises(ConnectionError):
        run(method, TWO_CLASSES, tmp_path / "lost", api=Cloud(fail_at=lost_call))
    run(method, TWO_CLASSES, tmp_path / "lost")
    assert bytes_of(tmp_path / "lost" / "rounds") == bytes_of(whole / "rounds")


# Published numbers


FORWARD = [pytest.param(*row, id=name) for name, *row in gaussian_rows()]
INVERSE = [
    pytest.param(fact["inputs"]["eps"], fact["inputs"]["T"], fact["inputs"]["delta"], fact["computed_value"], id=name)
    for name, fact in FACTS.items()
    if name.startswith("pe.inverse.")
]


def paper_plan(rounds: int, **privacy: Any) -> Plan:
    method = evolution(iterations=rounds, noise=VoteNoise.gaussian)
    return Plan.make(method, ONE_CLOUD, Privacy(**privacy))


@pytest.mark.parametrize(("sigma", "rounds", "delta", "epsilon"), FORWARD)
def test_the_plan_reproduces_epsilon(sigma, rounds, delta, epsilon):
    assert paper_plan(rounds, noise_multiplier=sigma, delta=delta).epsilon == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize(("epsilon", "rounds", "delta", "sigma"), INVERSE)
def test_the_plan_finds_the_noise_multiplier_and_keeps_below_the_target(epsilon, rounds, delta, sigma):
    plan = paper_plan(rounds, epsilon=epsilon, delta=delta)
    assert plan.noise_multiplier == pytest.approx(sigma, rel=2e-6)
    assert plan.epsilon <= epsilon


def test_the_golden_rows_are_all_there():
    assert len(FORWARD) >= 70
    assert len(INVERSE) == 10
