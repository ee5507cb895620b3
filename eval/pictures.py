"""Pictures and curves for looking at a release: nearest private images, distances, rounds and votes of Private Evolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from data.dataset import Dataset
from data.grid import Block, present, tiled
from data.images import conform
from data.rounds import SHOWN, Round, first, kept_rounds, sample_size, voted
from errors import require
from eval.curves import MEASURED, POINTS, cumulative, panels, shades
from eval.evaluator import Cost, EvaluationContext, InEmbedding, Reference
from eval.membership import equally_many, nearest_distances
from eval.watermark import save_private
from models.features.spaces import EmbeddingName, Spaces
from models.neighbours import k_nearest
from models.public.settings import Model
from tracking.progress import console, progress

WIDEST = 1400  # pixels that blocks of rounds try to stay below
MOST_ROUNDS = 8  # side by side


@dataclass(kw_only=True)
class Pictures(InEmbedding):
    """Lin et al. 2024, Fig. 15-20 and 23-29, in the space of `embedding` and of pixels. What shows private images needs
    `eval.private_figures=true`, and is watermarked."""

    enabled: bool = False
    rows: int = 20  # samples whose nearest private images are shown, shared among the classes
    neighbours: int = 5  # nearest private images of a sample

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        super().check(key, dataset, model, spaces)
        require(self.rows >= 1, f"{key}.rows", self.rows, "1 or more")
        require(
            1 <= self.neighbours <= dataset.num_private_images,
            f"{key}.neighbours",
            self.neighbours,
            f"from 1 to {dataset.num_private_images}",
        )

    def embeddings(self) -> set[EmbeddingName]:
        return {self.embedding, EmbeddingName.pixels}

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        """At most: there are no rounds but Private Evolution's."""
        real, in_round = dataset.num_private_images + dataset.num_test, sample_size(num_samples, dataset.shape)
        cost = Cost(0.0, MOST_ROUNDS * in_round * math.prod(dataset.shape))
        for embedding in self.embeddings():
            flops, dim = spaces.cost(embedding, dataset.shape)
            images = num_samples + real
            cost.flops += images * flops + 2 * 2.0 * num_samples * real * dim
            cost.bytes += 4 * images * dim
            cost.flops += MOST_ROUNDS * in_round * (flops + 2 * 2.0 * dataset.num_private_images * dim)
            cost.bytes += 4 * in_round * dim
        return cost

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        rounds = list(kept_rounds(context.checkpoints)) if context.checkpoints else []
        if rounds:
            rounds_picture(rounds, context.dataset.classes).save(context.figures / "rounds.png")
            self._draw_distances_by_round(rounds, context)
        if cast := [one for one in rounds if one.votes is not None]:
            votes_picture(cast, context.dataset.classes).save(context.figures / "votes.png")
            draw_spread(cast, context)
        self._draw_distances(context)
        nearest = {embedding: f"nearest_{embedding.value}.png" for embedding in self._spaces()}
        if not context.private_figures:
            files = ", ".join(nearest.values())
            told = f"pictures: {files} left out, as they show private images (eval.private_figures=true draws them)"
            console.print(told, highlight=False, soft_wrap=True)
            return
        for embedding, file in nearest.items():
            save_private(self._nearest_picture(context, embedding), context.figures / file)
        yield from ()

    def _spaces(self) -> list[EmbeddingName]:
        return sorted(self.embeddings(), key=lambda name: name is EmbeddingName.pixels)

    def _nearest_picture(self, context: EvaluationContext, embedding: EmbeddingName) -> Image.Image:
        """Fig. 15-16, 24-25. Shows private pixels: for `save_private` alone."""
        samples, private = context.samples, context.real(Reference.private)
        rows = spread_over_classes(samples.labels, self.rows)
        queries, points = context.features(embedding)[rows], context.features(embedding, Reference.private)
        found = k_nearest(queries, points, k := min(self.neighbours, len(points)))[1]
        blocks = [
            Block([samples.images[[row]] for row in rows], "sample"),
            Block([private.images[near] for near in found], "nearest private images"),
        ]
        told = f"Each sample beside the {k} private images nearest to it, the nearest first: L2 distance in {space(embedding)}."
        return tiled(blocks, names_of(samples.labels[rows], context.dataset.classes, samples.num_classes), told)

    def _draw_distances(self, context: EvaluationContext) -> None:
        """Fig. 17-18, 27-28."""
        spaces, note = self._spaces(), f"Compare curves of equally many real images. {MEASURED}"
        with panels(context.figures / "distances", rows=len(spaces), note=note) as axes:
            for (left, right), embedding in zip(axes, spaces, strict=True):
                samples = context.features(embedding)
                private, test = (context.features(embedding, split) for split in (Reference.private, Reference.test))
                few, others = equally_many(private, test, context.seed)
                curves = [
                    (left, samples, private, f"to {len(private):,} private images", "C7", ":"),
                    (left, samples, few, f"to {len(few):,} private images", "C0", "-"),
                    (left, samples, others, f"to {len(others):,} test images", "C1", "--"),
                    (right, private, samples, "from a private image", "C0", "-"),
                    (right, test, samples, "from a test image", "C1", "--"),
                ]
                curves = [curve for curve in curves if len(curve[1]) and len(curve[2])]  # there may be no test images
                with progress(f"pictures: distances, {embedding.value}", sum(len(curve[1]) for curve in curves)) as advance:
                    for axes_of, queries, points, name, color, style in curves:
                        found = nearest_distances(queries, points, advance)
                        cumulative(axes_of, found, label=name, color=color, linestyle=style)
                name_axes(left, right, "real image", embedding)

    def _draw_distances_by_round(self, rounds: list[Round], context: EvaluationContext) -> None:
        """Fig. 17-18, 27-28, of the populations on the way to the samples: of equally many images of each."""
        kept = [(one, sample) for one in _thinned(rounds) if (sample := one.sample) is not None]
        if not kept:
            return
        spaces, samples = self._spaces(), [conform(images, context.dataset.shape) for _, images in kept]
        told = f"Private images and {len(samples[0]):,} of each population. {MEASURED}"
        with panels(context.figures / "distances_by_round", rows=len(spaces), note=told) as axes:
            for (left, right), embedding in zip(axes, spaces, strict=True):
                private = context.features(embedding, Reference.private)
                count = sum(map(len, samples)) + len(samples) * len(private)
                with progress(f"pictures: distances by round, {embedding.value}", count) as advance:
                    for (one, _), images, shade in zip(kept, samples, shades(len(kept)), strict=True):
                        points = context.embeddings[embedding].embed(images)
                        look: dict[str, Any] = {"label": round_name(one), "color": shade}
                        cumulative(left, nearest_distances(points, private, advance), **look)
                        cumulative(right, nearest_distances(private, points, advance), **look)
                name_axes(left, right, "private image", embedding)


def rounds_picture(rounds: list[Round], classes: list[str]) -> Image.Image:
    """Fig. 23: the first samples of each class, round after round."""
    drawn = _thinned(rounds)
    columns = _columns(rounds[0], len(drawn))
    blocks = [Block([one.images(rows[:columns]) for rows in first(one.labels)], round_name(one)) for one in drawn]
    told = "Private Evolution: random images of the public model at the start, and the population after each round."
    return tiled(blocks, names_of(present(rounds[0].labels), classes), told)


def votes_picture(rounds: list[Round], classes: list[str]) -> Image.Image:
    """Fig. 19, 26, with noisy votes."""
    drawn = _thinned(rounds)
    columns = _columns(rounds[0], 2 * len(drawn))
    blocks = []
    for one in drawn:
        for most, title in ((True, f"round {one.index + 1}: most votes"), (False, "fewest votes")):
            rows_of_classes = voted(one.labels, one.noisy_votes, most)
            blocks.append(Block([one.images(rows[:columns]) for rows in rows_of_classes], title))
    told = "The images of each class with the most and with the fewest votes, in order. Votes are noisy, and private by DP."
    return tiled(blocks, names_of(present(rounds[0].labels), classes), told)


def draw_spread(rounds: list[Round], context: EvaluationContext) -> None:
    """Fig. 20, 29: noisy votes alone; the counts behind them are kept nowhere."""
    note = "Noisy votes above the threshold, as they choose parents: private by DP."
    with panels(context.figures / "votes_spread", note=note) as axes:
        drawn = _thinned(rounds)
        for one, shade in zip(drawn, shades(len(drawn)), strict=True):
            ranks = np.unique(np.geomspace(1, len(one.labels), POINTS).round().astype(int))
            axes[0, 0].plot(ranks, np.sort(one.noisy_votes)[::-1][ranks - 1], label=f"round {one.index + 1}", color=shade)
        axes[0, 0].set(xlabel="images, the most voted first", ylabel="noisy votes", xscale="log")
        spread = [float(one.noisy_votes.std()) for one in rounds]
        axes[0, 1].plot([one.index + 1 for one in rounds], spread, marker="o")
        axes[0, 1].set(xlabel="round", ylabel="standard deviation of noisy votes", ylim=(0, 1.1 * max(spread) + 1e-9))
        axes[0, 1].xaxis.get_major_locator().set_params(integer=True)


def name_axes(left: Any, right: Any, real: str, embedding: EmbeddingName) -> None:
    """Of distances both ways."""
    left.set(xlabel=f"from a sample to the nearest {real},\nin {space(embedding)}", ylabel="share of samples")
    right.set(xlabel=f"from a {real} to the nearest sample,\nin {space(embedding)}", ylabel="share of images")


def round_name(one: Round) -> str:
    return f"round {one.index}" if one.index else "start"


def spread_over_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """Row numbers of about `count` images, at least one: the first of each class, equally many of each."""
    classes = present(labels)[:count]
    return np.concatenate([np.flatnonzero(labels == label)[: max(1, count // len(classes))] for label in classes])


def names_of(labels: np.ndarray, classes: list[str], num_classes: int | None = None) -> list[str]:
    """Of rows of these labels; none where there is one class."""
    several = len(labels) > 1 if num_classes is None else num_classes > 1
    return [classes[label] for label in labels] if several else []


def space(embedding: EmbeddingName) -> str:
    return "pixel space" if embedding is EmbeddingName.pixels else f"the space of {embedding.value}"


def _thinned(rounds: list[Round]) -> list[Round]:
    """At most `MOST_ROUNDS`, evenly, with the first and the last."""
    return [rounds[i] for i in np.unique(np.linspace(0, len(rounds) - 1, MOST_ROUNDS).round().astype(int))]


def _columns(one: Round, blocks: int) -> int:
    """Images side by side in each of so many blocks."""
    side = one.images(first(one.labels)[0]).shape[2]
    return int(np.clip(WIDEST // blocks // max(36, side + 8), 2, SHOWN))
