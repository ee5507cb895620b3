"""The privacy boundary: what crosses it, and the certificate that goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from conf.schema import Config
from data.grid import save_grid
from data.images import conform
from data.private import PrivateDataset
from data.samples import SampleSet
from data.shards import save_release
from disk import write_json
from eval.evaluator import Subject
from eval.watermark import save_private
from method.base import Run
from method.plan import SELECTION
from privacy.ledger import Ledger, certificate
from privacy.mechanisms import Selection
from tracking.made_with import made_with
from tracking.run_dir import RunDir


def select(
    samples: SampleSet,
    private: PrivateDataset,
    run: Run,
    config: Config,
    folder: RunDir,
    subject: Callable[[SampleSet], Subject],
) -> dict[str, Any] | None:
    """What is chosen on private images, where that is paid for; drawn once, and kept before anybody sees it."""
    share, kept = config.privacy.selection_epsilon, folder.checkpoints / "selected.json"
    if share is None:
        return None
    images = private.spend(SELECTION, Selection(share))
    if not kept.exists():
        fitting = replace(samples, images=conform(samples.images, config.dataset.shape))
        with run.meter.part("selection"):
            write_json(kept, config.eval.downstream.select(subject(fitting), images, run.noise.stream(SELECTION), share))
    return json.loads(kept.read_text())


def publish(
    samples: SampleSet,
    selected: dict[str, Any] | None,
    config: Config,
    ledger: Ledger,
    folder: RunDir,
    save_model: Callable[[Path], None] | None,
    cost: dict[str, float],
) -> None:
    """Write what may be shared under release/. A run that is not private has no release/."""
    assumptions = [*config.dataset.assumptions(), *config.model.assumptions()]
    origin = {"method": config.method.name, "dataset": config.dataset.name, "public_model": config.model.name}
    samples.provenance = origin
    document = certificate(
        ledger,
        size=config.dataset.num_private,
        noise_seed=config.privacy.noise_seed,
        assumptions=assumptions,
        provenance={
            "epsilon_target": config.privacy.epsilon,
            **origin,
            **config.dataset.guarantee(),
            "num_samples": len(samples),
            **({"selected": selected} if selected else {}),
            "trainable_parameters": config.method.training_facts(config.model)["trainable_parameters"],
        },
    )

    def write(target: Path) -> None:
        save_release(samples, target)
        save_grid(samples, target / "grid.png", classes=config.dataset.classes)
        if ledger.holds_private_data:
            save_private(Image.open(target / "grid.png"), target / "grid.png")
        if save_model:
            save_model(target / "model")
        write_json(target / "privacy.json", document)

    write_json(folder.made_with, {"release": made_with(config.torch_device)})
    write_json(folder.cost, cost)
    folder.publish(write, private=document["private"])
