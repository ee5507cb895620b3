"""`method=dp_moments`: means and covariances of classes under one Gaussian mechanism, and samples of normal distributions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.dataset import Dataset
from data.private import PrivateDataset
from data.queries import Ask
from data.samples import SampleSet
from method import Method, Run
from models.public.settings import Model, PublicModel
from models.seeds import numpy_rng
from moments.measure import BasisName, Moment, Moments, measure, measurement
from privacy.config import Privacy
from privacy.mechanisms import Spend


@dataclass(kw_only=True)
class DPMoments(Moments, Method):
    """It needs no public model, and no public images. The least that any method should beat."""

    def __post_init__(self) -> None:
        self.uses_model = self.basis is BasisName.latents

    protects_users = True
    told = "Means and covariances of the classes were measured with noise, once; these were drawn from normal distributions."

    name: str = "dp_moments"
    num_samples: int = 10_000

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        self.check_moments("method", dataset, model, self.conditional)

    @property
    def takes_moments(self) -> bool:
        return True

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [*self.class_counts_spend(dataset, privacy), *self.moments_spends(dataset, noise_multiplier)]

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        return {"steps": 0, "network_calls": 0}

    def hints(self, dataset: Dataset, model: Model, privacy: Privacy, noise_multiplier: float | None) -> list[str]:
        assert noise_multiplier is not None
        return self.moments_hints(dataset, noise_multiplier, self.conditional)

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        network = model.memory() if self.uses_model else 0
        return None if network is None else self.moments_memory(dataset, self.num_samples) + network + 2**28

    def measurement(
        self, dataset: Dataset, model: PublicModel, classes: int, size: int, sigma: float, seed: int
    ) -> Callable[[Ask], Moment]:
        """What `run` asks of private images, for an audit."""
        return measurement(self, dataset, model, classes, size, sigma, seed, self.conditional)

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        assert run.noise_multiplier is not None
        with run.meter.part("moments"):
            moment = measure(self, private, model, run, run.noise_multiplier, self.conditional)
        sizes = self.class_sizes(private, run, moment.class_counts)
        with run.meter.part("sampling"):
            return moment.draw(sizes, numpy_rng(run.seed, "dp_moments/samples"))
