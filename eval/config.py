"""Which evaluators run: `eval=…`, and `eval.<evaluator>.<key>=…`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from data.dataset import Dataset
from eval.discriminator import Discriminator
from eval.distances import Frechet
from eval.downstream import Downstream
from eval.evaluator import Evaluator
from eval.intrinsic import IntrinsicDimension
from eval.membership import Membership
from eval.pictures import Pictures
from models.config import EmbeddingName, Model


@dataclass(kw_only=True)
class Evaluation:
    frechet: Frechet = field(default_factory=Frechet)
    downstream: Downstream = field(default_factory=Downstream)
    discriminator: Discriminator = field(default_factory=Discriminator)
    membership: Membership = field(default_factory=Membership)
    intrinsic_dimension: IntrinsicDimension = field(default_factory=IntrinsicDimension)
    pictures: Pictures = field(default_factory=Pictures)
    private_figures: bool = False  # pictures that show private images, under internal/ and watermarked

    @property
    def evaluators(self) -> dict[str, Evaluator]:
        every = {name.name: getattr(self, name.name) for name in fields(self)}
        return {name: part for name, part in every.items() if isinstance(part, Evaluator) and part.enabled}

    def embeddings(self) -> set[EmbeddingName]:
        return {name for evaluator in self.evaluators.values() for name in evaluator.embeddings()}

    def check(self, dataset: Dataset, model: Model) -> None:
        for name, evaluator in self.evaluators.items():
            evaluator.check(f"eval.{name}", dataset, model)
