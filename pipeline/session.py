"""What a method is started with, beside the public model: the handle to private images, the ledger, the noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from data.dataset import Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from method import Run
from pipeline.plan import Plan
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from store.run_dir import RunDir
from tracking.tracker import Several, Tracker


@dataclass
class Session:
    """Opened once for every caller: a run, an audit, a benchmark."""

    private: PrivateDataset
    run: Run
    ledger: Ledger

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        privacy: Privacy,
        plan: Plan,
        noise: NoiseSource,
        folder: Path,
        *,
        ledger: Path | None = None,
        figures: Path | None = None,
        tracker: Tracker | None = None,
        load: Callable[[], SampleSet] | None = None,
        num_classes: int | None = None,
        fewer: bool | None = None,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> Session:
        """`folder` takes checkpoints, and the ledger and figures that are given no place. `load`, `num_classes` and `fewer` (than
        the public number of images there may be) are the dataset's where they are not given.

        What public inputs have spent is in the ledger when this returns.
        """
        book = Ledger(ledger or folder / "ledger.jsonl", plan.spends, plan.delta, privacy.accountant)
        for spend in plan.inherited.spends:
            book.spend(spend.purpose, spend.mechanism, spend.count)
        classes = len(dataset.classes) if num_classes is None else num_classes
        may_be_fewer = dataset.may_be_fewer if fewer is None else fewer
        private = PrivateDataset(load or dataset.private, dataset.num_private, classes, book, may_be_fewer, privacy.unit)
        run = Run(
            dataset=dataset.sealed(),
            privacy=privacy,
            noise=noise,
            noise_multiplier=plan.noise_multiplier,
            seed=seed,
            tracker=tracker or Several(),
            checkpoints=folder,
            figures=figures or folder,
            device=device or torch.device("cpu"),
        )
        return cls(private, run, book)

    @classmethod
    def of_run(
        cls,
        dataset: Dataset,
        privacy: Privacy,
        plan: Plan,
        folder: RunDir,
        tracker: Tracker,
        load: Callable[[], SampleSet],
        seed: int,
        device: torch.device,
        key: Path | None = None,
    ) -> Session:
        """In a run directory, with its noise; `key`: where that is kept, if not there."""
        return cls.open(
            dataset,
            privacy,
            plan,
            NoiseSource.for_run(key or folder.noise_key, privacy.noise_seed),
            folder.checkpoints,
            ledger=folder.ledger,
            figures=folder.making.figures,
            tracker=tracker,
            load=load,
            seed=seed,
            device=device,
        )
