"""The privacy boundary: what crosses it, and the certificate that goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.images import conform
from data.overlap import PUBLIC_DIGESTS, digests_beside
from data.samples import SampleSet
from disk import write_json, write_whole
from eval.evaluator import EvaluationContext
from eval.watermark import save_private
from method import Made
from pipeline.card import CARD, card
from pipeline.config import Config
from pipeline.contents import GRID, contents, write_contents
from pipeline.croissant import CROISSANT, croissant
from pipeline.plan import SELECTION, Plan
from pipeline.resume import described
from pipeline.session import Session
from privacy.inherited import PublicInput, carry_certificate
from privacy.ledger import certificate
from privacy.mechanisms import Selection
from store.run_dir import RunDir
from store.seal import seal
from tracking.environment import environment


def select(
    made: Made,
    session: Session,
    config: Config,
    folder: RunDir,
    context: Callable[[SampleSet], EvaluationContext],
) -> dict[str, Any] | None:
    """What is chosen on private images, where that is paid for; drawn once, and kept before anybody sees it."""
    share, kept = config.privacy.selection_epsilon, folder.checkpoints / "selected.json"
    if share is None:
        return None
    assert isinstance(made, SampleSet)  # `Config.check` has seen to that
    images, run = session.private.spend(SELECTION, Selection(share)), session.run
    if not kept.exists():
        fitting = replace(made, images=conform(made.images, config.dataset.shape))
        with run.meter.part("selection"):
            write_json(kept, config.eval.downstream.select(context(fitting), images, run.noise.stream(SELECTION), share))
    return json.loads(kept.read_text())


def publish(
    made: Made,
    selected: dict[str, Any] | None,
    config: Config,
    plan: Plan,
    inputs: Sequence[PublicInput],
    session: Session,
    folder: RunDir,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write what may be shared under release/. A run that is not private has no release/.

    `beside`: more for the certificate.
    """
    ledger, run = session.ledger, session.run
    model = config.model if config.method.uses_model else None
    assumptions = [*config.dataset.assumptions(), *(model.assumptions() if model else []), *plan.inherited.assumptions]
    origin = {"method": config.method.name, "dataset": config.dataset.name, "public_model": model.name if model else None}
    if isinstance(made, SampleSet):
        made.provenance = origin
    trained = config.method.training_facts(config.dataset, config.model)
    document = certificate(
        ledger,
        identity=run.noise.identity(),
        size=config.dataset.num_private,
        unit=config.privacy.unit,
        noise_seed=config.privacy.noise_seed,
        assumptions=assumptions,
        provenance={
            "epsilon_target": config.privacy.epsilon,
            **origin,
            **config.dataset.guarantee(),
            "public_inputs": described(folder, inputs),
            **plan.inherited.origins(),
            **contents(made, config.dataset.classes),
            **({"selected": selected} if selected else {}),
            "trainable_parameters": trained["trainable_parameters"],
            **(beside or {}),
        },
    )

    def write(target: Path) -> None:
        write_contents(made, target, config.dataset.classes)
        if ledger.holds_private_data:
            save_private(Image.open(target / GRID), target / GRID)
        if run.save_model:
            run.save_model(target / "model")
            carry_certificate(document, target / "model")
            if (seen := digests_beside([one.path for one in inputs])) is not None:
                np.save(target / "model" / PUBLIC_DIGESTS, seen)
        if document["private"]:
            write_whole(target / CARD, card(document, made, config.method.how_made))
            if isinstance(made, SampleSet):
                write_json(target / CROISSANT, croissant(document, made, target))
        seal(target, document, config.privacy.signing_key)

    write_json(folder.making.made_with, {"release": environment(config.torch_device)})
    write_json(folder.cost, run.meter.taken())
    folder.publish(write, private=document["private"])
