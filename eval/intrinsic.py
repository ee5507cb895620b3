"""How many dimensions the variations of one image fill in an embedding (Lin et al. 2024, App. G, Fig. 9-10)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from data.dataset import Dataset
from data.images import conform
from errors import reject_unless, require
from eval.curves import MEASURED, panels
from eval.evaluator import Cost, EvaluationContext, InEmbedding, Reference
from models.features.spaces import Spaces
from models.public.settings import Model
from models.seeds import numpy_rng
from tracking.progress import progress

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the highest degree, where none are given


class Start(Enum):
    private = "private"  # a private image, at a random public label: the paper's
    samples = "samples"  # one of the release, at the public label that it has


@dataclass(kw_only=True)
class IntrinsicDimension(InEmbedding):
    """For each degree the number of singular values that explain 80 % of the variance among variations of one image."""

    enabled: bool = False
    start: Start = Start.private  # which image is varied
    degrees: list[float] = field(default_factory=list)  # none: six, up to the model's highest
    variations: int | None = None  # null: 1.5 for each dimension of the embedding (the paper's 3,000 for 2,048)
    explained: float = 0.8  # share of the variance

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        super().check(key, dataset, model, spaces)
        off = f"or {key}.enabled=false"
        problem = f"{key} varies images with public weights; name some, {off}"
        reject_unless(model.pretrained is not None, "model.pretrained", model.pretrained, problem)
        problem = f"model={model.name} does not tell which degrees it has; give some, {off}"
        reject_unless(bool(self.degrees) or model.highest_degree is not None, f"{key}.degrees", self.degrees, problem)
        for degree in self.degrees:
            model.check_degree(f"{key}.degrees", degree, None)
        local = self.start is Start.samples or model.local
        problem = f"model={model.name} may send a private image away; use samples, {off}"
        reject_unless(local, f"{key}.start", self.start, problem)
        require(self.variations is None or self.variations >= 2, f"{key}.variations", self.variations, "2 or more, or null")
        require(0 < self.explained <= 1, f"{key}.explained", self.explained, "above 0 and at most 1")

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        flops, dim = spaces.cost(self.embedding, dataset.shape)
        count, degrees = self._variations(dim), self._degrees(model)
        calls = [model.calls(degree) for degree in degrees]
        each = count * flops + 4.0 * count * dim * min(count, dim)
        known = model.facts()["flops"]
        unknown = known is None or None in calls
        network = math.nan if unknown else sum(filter(None, calls)) * count * float(known or 0)
        return Cost(network + len(degrees) * each, 3 * 8 * count * dim)

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        assert context.model is not None
        embedding, shape = context.embeddings[self.embedding], context.dataset.shape
        api = context.model.build(context.dataset, context.device, context.seed).api
        image, label = self._start(context, api.num_labels)
        image = conform(image, context.model.image_shape)
        dim = embedding.embed(conform(image, shape)).shape[1]
        count, degrees = self._variations(dim), self._degrees(context.model)
        spectra = {}
        with progress("intrinsic dimension: variations", len(degrees) * count) as advance:
            for degree in degrees:
                made = api.variation(
                    np.repeat(image, count, 0),
                    np.repeat(label, count),
                    degree,
                    stream=f"eval/intrinsic_dimension/degree={degree:g}",
                    advance=advance,
                )
                spectra[degree] = singular_values(embedding.embed(conform(made, shape)))
                yield f"intrinsic_dimension/degree_{degree:g}", float(intrinsic_dimension(spectra[degree], self.explained))
        self._draw(context, spectra, dim, count)

    def _start(self, context: EvaluationContext, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
        """One image, uint8 [1, H, W, C], and its public label, int64 [1]."""
        rng = numpy_rng(context.seed, "eval/intrinsic_dimension")
        of_samples = self.start is Start.samples
        source = context.samples if of_samples else context.real(Reference.private)
        row = int(rng.integers(len(source)))
        drawn = rng.integers(num_labels, size=1)
        known = source.public_labels if of_samples else None
        return source.images[[row]], drawn if known is None else known[[row]]

    def _draw(self, context: EvaluationContext, spectra: dict[float, np.ndarray], dim: int, count: int) -> None:
        note = f"{count} variations of one {'sample' if self.start is Start.samples else 'private image'}. {MEASURED}"
        with panels(context.figures / "intrinsic_dimension", note=note) as axes:
            sizes = [intrinsic_dimension(values, self.explained) for values in spectra.values()]
            axes[0, 0].plot(list(spectra), sizes, marker="o")
            axes[0, 0].set(xlabel="variation degree", ylabel=f"dimensions of {dim} that explain {self.explained:.0%}")
            axes[0, 0].set_ylim(0, 1.1 * max(sizes) + 1)
            axes[0, 0].set_xticks(list(spectra), [f"{degree:g}" for degree in spectra])
            for degree, values in spectra.items():
                axes[0, 1].plot(np.arange(1, len(values) + 1), values / count, label=f"degree {degree:g}")
            axes[0, 1].set(xlabel="dimension", ylabel=f"singular value / {count}")

    def _variations(self, dim: int) -> int:
        return self.variations or max(2, round(1.5 * dim))

    def _degrees(self, model: Model) -> list[float]:
        if self.degrees:
            return list(self.degrees)
        assert model.highest_degree is not None
        degrees = [share * model.highest_degree for share in SHARES]
        return degrees if model.highest_degree <= 1 else sorted({float(max(1, round(degree))) for degree in degrees})


def singular_values(vectors: np.ndarray) -> np.ndarray:
    """Of vectors [N, D] around their mean, descending: float64 [min(N, D)]."""
    vectors = vectors.astype(np.float64)
    return np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)


def intrinsic_dimension(values: np.ndarray, explained: float) -> int:
    """The fewest singular values (descending) whose squares are `explained` of the sum of all squares; 0 where all are 0."""
    energy = np.cumsum(np.square(values))
    return 0 if energy[-1] == 0 else int(np.argmax(energy >= explained * energy[-1])) + 1
