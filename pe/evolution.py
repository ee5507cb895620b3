"""Private Evolution (Lin et al. 2024, Alg. 1-4): a population of generated images evolves towards the private ones.

Each private image votes for its nearest generated image; noisy votes choose parents; VARIATION makes offspring. With
classes, the rounds of all classes run side by side: an image votes in its own class alone, so one noise serves all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from data.dataset import Dataset
from data.grid import save_grid
from data.private import PrivateDataset
from data.rounds import keep_round
from data.samples import SampleFileError, SampleSet
from errors import reject_unless, require
from method import (
    Method,
    Run,
    require_large_enough,
    require_matching_labels,
    require_matching_shape,
    require_public_weights,
)
from models.api import Embedding, ImageAPI
from models.features.spaces import EmbeddingName
from models.neighbours import NeighbourBackend
from models.public.settings import Model, PublicModel
from models.seeds import numpy_rng
from moments.measure import Moment
from moments.warm_up import WarmUp
from pe.embedded import BLOCK, PrivateEmbeddings
from pe.histogram import VoteNoise, count_votes, noisy_votes, threshold_votes
from privacy.config import Privacy
from privacy.mechanisms import DiscreteGaussian, Gaussian, Spend
from tracking.progress import Advance, console


class InitialLabels(Enum):
    random = "random"  # the public model's labels are drawn at birth: they need not be the private classes (the paper)
    matching = "matching"  # private class c starts from public label c: the label names are the same, public knowledge


@dataclass(kw_only=True)
class PrivateEvolution(Method):
    """`method=pe`. Round t uses `variation_degrees[t-1]` and, where given, `respacings[t-1]`."""

    protects_users = True
    told = "A public model made variations of images, and noisy votes of the private ones, round by round, chose which to keep."

    name: str = "pe"
    iterations: int = 5  # rounds of votes
    lookahead: int = 4  # k: variations of a sample whose mean embedding stands for it when images vote; 0: its own
    threshold: float = 2.0  # H: is taken off every vote count; what falls below 0 counts as 0
    variation_degrees: list[float] = field(default_factory=list)  # one for each round
    # one for each round's variations; empty: the model's
    respacings: list[str] = field(default_factory=list)
    expansions: int = 0  # §4.2: the release is the last population and this many variations of each of its members
    expansion_degree: float | None = None  # of these variations; null without any
    noise: VoteNoise = VoteNoise.discrete_gaussian  # of the votes
    embedding: EmbeddingName = EmbeddingName.public_features  # the space in which images vote
    # which library finds the sample that an image votes for; torch is exact, and the same on every device
    neighbours: NeighbourBackend = NeighbourBackend.torch
    initial_labels: InitialLabels = InitialLabels.random  # which public labels the first population has
    warm_up: WarmUp = field(default_factory=WarmUp)  # the first population is VARIATIONS of samples of moments

    @property
    def how_made(self) -> str:
        return self.warm_up.told_before(self.told)

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        require_public_weights(self, model)
        super().check(dataset, model, privacy)
        require_large_enough(self, dataset, model)
        if self.initial_labels is InitialLabels.matching:
            require_matching_labels(self, dataset, model)
        reject_unless(
            self.embedding in model.spaces.names, "method.embedding", self.embedding, f"model={model.name} has none; use pixels"
        )
        model.spaces.require_channels("method.embedding", self.embedding, model.image_shape[2])
        require(self.iterations >= 1, "method.iterations", self.iterations, "1 or more")
        require(self.lookahead >= 0, "method.lookahead", self.lookahead, "0 (off) or more")
        require(0 <= self.threshold < float("inf"), "method.threshold", self.threshold, "0 or more")
        for key, values in (("variation_degrees", self.variation_degrees), ("respacings", self.respacings)):
            fits = len(values) == self.iterations or (key == "respacings" and not values)
            require(fits, f"method.{key}", values, f"one for each of method.iterations={self.iterations} rounds")
        for t in range(1, self.iterations + 1):
            degree, respacing = self._degree(t)
            model.check_respacing("method.respacings", respacing)
            model.check_degree("method.variation_degrees", degree, respacing)
        self.warm_up.check("method.warm_up", dataset, model, privacy, self.conditional)
        if self.takes_moments:
            require_matching_shape(self, dataset, model)
            matching = model.labels == 1 or (self.conditional and self.initial_labels is InitialLabels.matching)
            allowed = "matching, and method.conditional true, as a warm-up starts from every class; tuned=none has no warm-up"
            require(matching, "method.initial_labels", self.initial_labels, allowed)
            first = self.warm_up.degree
            require(
                first is not None, "method.warm_up.degree", first, "set, as the first population is variations of that degree"
            )
        require(self.expansions >= 0, "method.expansions", self.expansions, "0 or more")
        if self.expansions:
            key, more = "method.expansion_degree", self.expansion_degree
            require(more is not None, key, more, f"set, as method.expansions={self.expansions}")
            assert more is not None
            model.check_degree(key, more, None)

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        votes = Spend("pe.votes", self.noise.mechanism(noise_multiplier, privacy.unit), self.iterations)
        return [*self.warm_up.spends(dataset, privacy), *self.class_counts_spend(dataset, privacy), votes]

    def hints(self, dataset: Dataset, model: Model, privacy: Privacy, noise_multiplier: float | None) -> list[str]:
        return self.warm_up.hints(dataset, privacy, self.conditional)

    @property
    def takes_moments(self) -> bool:
        return self.warm_up.epsilon is not None

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        first = model.calls(self.warm_up.degree if self.takes_moments else None)
        each = [(1, first), *((self.lookahead + 1, model.calls(*self._degree(t))) for t in range(1, self.iterations + 1))]
        if self.expansions:
            each.append((self.expansions, model.calls(self.expansion_degree)))
        known = [times * calls for times, calls in each if calls is not None]
        trained = self.warm_up.trained_images
        calls = trained + self.num_samples * sum(known) if len(known) == len(each) else None
        return {"steps": self.iterations, "network_calls": calls, **({"backward_calls": trained} if trained else {})}

    def training_facts(self, dataset: Dataset, model: Model) -> dict[str, int]:
        costs = self.warm_up.training_costs(model)
        if costs is None:
            return super().training_facts(dataset, model)
        return {"trainable_parameters": costs.parameters, "backward_flops": costs.backward_flops}

    def released(self, dataset: Dataset) -> int:
        return (1 + self.expansions) * self.num_samples

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        """The population, its variations and offspring; its embeddings, those of private images, and a block of distances."""
        if (generator := model.memory()) is None:
            return None
        _, dim = model.spaces.cost(self.embedding, model.image_shape)
        networks = generator + model.spaces.memory(self.embedding, model.image_shape)
        private = BLOCK if self.embedding is EmbeddingName.pixels else dataset.num_private_images
        images = (3 + 2 * (1 + self.expansions)) * self.num_samples * math.prod(model.image_shape)
        voting = networks + images + 4 * dim * (3 * self.num_samples + private + BLOCK) + 2**27
        return max(voting, self.warm_up.memory(dataset, model))

    def embeddings(self) -> set[EmbeddingName]:
        return {self.embedding}

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        moment = self.warm_up.measure(private, model, run, self.conditional)
        sizes = self.class_sizes(private, run, None if moment is None else moment.class_counts)
        labels = np.repeat(np.arange(private.num_classes if self.conditional else 1), sizes)
        embedding, api = model.embeddings[self.embedding], model.api
        if moment is not None:
            matching = self.initial_labels is InitialLabels.matching
            known = self.model_labels(run.dataset) if matching else np.zeros(len(sizes), np.int64)  # the model's one label
            self.warm_up.train(moment, model.denoiser, run, known, self.conditional)
        for t, population in self.evolve(private, api, embedding, labels, run, moment):
            save_grid(population, run.figures / f"round_{t:03d}.png", classes=run.dataset.classes)
            population.save(run.checkpoints / "population.npz")
        keep_round(run.checkpoints, self.iterations, population, votes=None)
        return self.expand(population, api, run)

    def evolve(
        self,
        private: PrivateDataset,
        api: ImageAPI,
        embedding: Embedding,
        labels: np.ndarray,
        run: Run,
        moment: Moment | None = None,
    ) -> Iterator[tuple[int, SampleSet]]:
        """Alg. 1 and 3: yields (round, population) from round 0, or from the round that a killed run had saved."""
        population = _saved(run)
        if population is None:
            public_labels = self._birth_labels(labels, api, run)
            with run.progress("PE: first images", len(labels)) as advance, run.meter.part("random"):
                if moment is None:
                    images = api.random(public_labels, stream="pe/random", advance=advance)
                else:
                    drawn = moment.draw(
                        np.bincount(labels, minlength=len(moment.class_counts)), numpy_rng(run.seed, "pe/moments")
                    )
                    degree = self.warm_up.degree
                    assert degree is not None
                    images = api.variation(drawn.images, public_labels, degree, stream="pe/moments", advance=advance)
            population = SampleSet(images, labels, labels.max() + 1, public_labels, {"round": 0})
        done = population.provenance["round"]
        if done:
            console.print(f"PE: goes on after round {done} of {self.iterations}", highlight=False)
        for t in range(1, done + 1):  # spent, whatever became of the ledger's file
            private.spend(f"pe.votes/round={t}", self._mechanism(run))
        yield done, population
        there = PrivateEmbeddings(embedding, population.images.shape[1:])
        with run.progress("PE: variations", (self.iterations - done) * (self.lookahead + 1) * len(labels)) as advance:
            for t in range(done + 1, self.iterations + 1):
                points = self.look_ahead(population, api, embedding, t, run, advance)
                votes = self.vote(population, points, private, there, t, run)
                keep_round(run.checkpoints, t - 1, population, votes)
                population = self.offspring(population, votes, api, t, run, advance)
                yield t, population

    def vote(
        self,
        population: SampleSet,
        points: np.ndarray,
        private: PrivateDataset,
        there: PrivateEmbeddings,
        t: int,
        run: Run,
    ) -> np.ndarray:
        """Alg. 2: noisy, thresholded votes for the population, float64 [N], whose members stand at `points` [N, D]."""
        mechanism, purpose = self._mechanism(run), f"pe.votes/round={t}"
        images = private.spend(purpose, mechanism)
        votes = np.zeros(len(population), np.int64)
        private_labels = images.labels if self.conditional else np.zeros_like(images.labels)
        shares = images.whole_shares
        for vectors, rows in run.meter.each("embedding", there.blocks(images)):
            with run.meter.part("votes"):
                found = points, population.labels, self.neighbours, shares[rows], run.device
                votes += count_votes(vectors, private_labels[rows], *found)
        noisy = noisy_votes(votes, self.noise, mechanism.noise_multiplier, run.noise.stream(purpose), images.parts)
        votes = threshold_votes(noisy, self.threshold)
        run.tracker.log({"pe/noisy_votes": float(votes.sum()), "pe/images_with_votes": int((votes > 0).sum())}, step=t)
        return votes

    def look_ahead(
        self, population: SampleSet, api: ImageAPI, embedding: Embedding, t: int, run: Run, advance: Advance
    ) -> np.ndarray:
        """Embeddings of the population, or with `lookahead` k > 0 the mean over k variations of each: float32 [N, D]."""
        if self.lookahead == 0:
            with run.meter.part("embedding"):
                return embedding.embed(population.images)
        degree, respacing = self._degree(t)
        total: np.ndarray | float = 0.0
        for k in range(self.lookahead):
            stream = f"pe/round={t}/lookahead={k}"
            with run.meter.part("variation"):
                images = api.variation(
                    population.images, _public(population), degree, stream=stream, respacing=respacing, advance=advance
                )
            with run.meter.part("embedding"):
                total = total + embedding.embed(images)
        return np.asarray(total, np.float32) / self.lookahead

    def offspring(self, population: SampleSet, votes: np.ndarray, api: ImageAPI, t: int, run: Run, advance: Advance) -> SampleSet:
        """Parents with replacement in proportion to votes, per class; then one variation of each, public labels inherited."""
        rng = numpy_rng(run.seed, f"pe/round={t}/parents")
        parents = np.empty(len(population), np.int64)
        for label in np.unique(population.labels):
            mine = np.flatnonzero(population.labels == label)
            total = votes[mine].sum()
            if total <= 0:
                console.print(f"round {t}, class {label}: no vote above the threshold; its parents are drawn uniformly")
                run.tracker.log({"pe/class_without_votes": int(label)}, step=t)
            parents[mine] = rng.choice(mine, len(mine), p=votes[mine] / total if total > 0 else None)
        chosen = population[parents]
        degree, respacing = self._degree(t)
        stream = f"pe/round={t}/offspring"
        with run.meter.part("variation"):
            images = api.variation(chosen.images, _public(chosen), degree, stream=stream, respacing=respacing, advance=advance)
        return SampleSet(images, population.labels, population.num_classes, chosen.public_labels, {"round": t})

    def expand(self, population: SampleSet, api: ImageAPI, run: Run) -> SampleSet:
        """§4.2: as many samples as wanted from the last population, at no privacy cost."""
        images = [population.images]
        if self.expansions:
            assert self.expansion_degree is not None
            more = self.expansions * len(population)
            with run.meter.part("variation"), run.progress("PE: more samples", more) as advance:
                for i in range(self.expansions):
                    stream, public = f"pe/expansion={i}", _public(population)
                    images.append(api.variation(population.images, public, self.expansion_degree, stream=stream, advance=advance))
        copies = 1 + self.expansions
        labels, public_labels = np.tile(population.labels, copies), np.tile(_public(population), copies)
        return SampleSet(np.concatenate(images), labels, population.num_classes, public_labels)

    def _mechanism(self, run: Run) -> Gaussian | DiscreteGaussian:
        assert run.noise_multiplier is not None
        return self.noise.mechanism(run.noise_multiplier, run.privacy.unit)

    def _degree(self, t: int) -> tuple[float, str | None]:
        return self.variation_degrees[t - 1], self.respacings[t - 1] if self.respacings else None

    def _birth_labels(self, labels: np.ndarray, api: ImageAPI, run: Run) -> np.ndarray:
        if self.initial_labels is InitialLabels.matching and self.conditional:
            return self.model_labels(run.dataset)[labels]
        return numpy_rng(run.seed, "pe/labels").integers(api.num_labels, size=len(labels))


def _public(samples: SampleSet) -> np.ndarray:
    assert samples.public_labels is not None
    return samples.public_labels


def _saved(run: Run) -> SampleSet | None:
    try:
        return SampleSet.load(run.checkpoints / "population.npz")
    except SampleFileError:
        return None
