"""A classifier trained by DP-SGD on the private images themselves, which classifiers of synthetic images are compared with.

    python -m scripts.dp_classifier                                            # the embedded digits, in minutes
    python -m scripts.dp_classifier dataset=cifar10 privacy.epsilon=3 method.classifier=wrn16_4 out=runs/mine
    python -m scripts.dp_classifier +dp_classifier=dpd_mnist                   # a row of a paper
    python -m scripts.dp_classifier plan_only=true                             # what it would cost

`out` is a run directory like any other: `release/` holds the classifier (`classifier.safetensors`, `classifier.json`) and its
certificate, `internal/metrics.json` its accuracy on the real test images, read once, at the end. A killed training goes on with
the same command and `out=` its folder.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING, DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from conf.compose import compose_script
from conf.help import goes_on_with, run_script
from data.dataset import Dataset
from data.samples import SampleSet
from disk import write_json
from dp_finetune.classifier import DPClassifier
from errors import require
from models.classifiers.training import accuracy
from pipeline.config import check_device, refuse_added_keys, tell_unit, torch_device
from pipeline.failure import noting_failure
from pipeline.plan import Plan
from pipeline.resume import begin, keep_apart
from pipeline.session import Session
from privacy.config import Privacy, caution
from privacy.ledger import certificate
from store.identity import plain
from store.run_dir import RunDir
from store.seal import seal
from tracking.tracker import TrackerConfig


@dataclass(kw_only=True)
class Classifying:
    dataset: Dataset = MISSING
    method: DPClassifier = field(default_factory=DPClassifier)
    privacy: Privacy = MISSING
    tracker: TrackerConfig = MISSING
    out: str | None = None  # default: a new folder under runs/
    seed: int = 0
    device: str = "auto"
    plan_only: bool = False

    def __post_init__(self) -> None:
        tell_unit(self.dataset, self.privacy)


def main(overrides: list[str]) -> None:
    # Setup
    cfg = _composed(overrides)
    settings: Any = OmegaConf.to_object(cfg)
    _check(settings)
    data, method, privacy, device = settings.dataset, settings.method, settings.privacy, torch_device(settings.device)
    plan = Plan.make(method, data, privacy)
    if settings.plan_only:
        events = [spend.to_dict() for spend in plan.spends]
        budget: dict[str, Any] = {
            "epsilon": plan.epsilon,
            "delta": plan.delta,
            "noise_multiplier": plan.noise_multiplier,
            "events": events,
        }
        if warning := caution(plan.delta, data.num_private, privacy.unit):
            budget["caution"] = warning
        print(json.dumps({"dataset": data.facts(), "privacy": budget}, indent=2))
        return
    data.prepare()
    load, place = functools.cache(data.private), f"runs/{data.name}-{method.name}/{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder = RunDir(Path(settings.out or place), key="out")
    keep_apart(data, [], load, opens=True)
    again = [*(override for override in overrides if not override.startswith("out=")), f"out={folder.path}"]
    with noting_failure(folder, goes_on_with("-m scripts.dp_classifier", again)):
        try:
            begin(folder, settings, plan, privacy, load, device)
            _train_and_judge(settings, plan, folder, load, device)
        finally:
            folder.close()


def _train_and_judge(
    settings: Classifying, plan: Plan, folder: RunDir, load: Callable[[], SampleSet], device: torch.device
) -> None:
    data, method, privacy = settings.dataset, settings.method, settings.privacy
    tracker = settings.tracker.build(folder.path, plain(settings))

    # Run
    if folder.output is None:
        session = Session.of_run(data, privacy, plan, folder, tracker, load, settings.seed)
        network = method.train(session.private, session.run, device)
        write_json(folder.cost, session.run.meter.taken())
        _release(network, settings, session, folder)
    assert folder.output is not None
    network = method.recipe.network(data.shape[2], len(data.classes))
    network.load_state_dict(load_file(folder.output / "classifier.safetensors"))

    # Report
    reached = accuracy(network, data.test(), device)
    tracker.log({"dp_classifier/accuracy": reached}, internal=True)
    document = folder.certificate
    assert document is not None
    budget = {"privacy/epsilon": document["epsilon"], "privacy/delta": document["delta"]}
    cost = json.loads(folder.cost.read_text()) if folder.cost.exists() else {}
    write_json(folder.metrics, {**budget, **cost, "dp_classifier/accuracy": reached})
    spent = f"ε = {document['epsilon']:.4g}, δ = {document['delta']:g}"
    print(f"{method.classifier.title} by DP-SGD at {spent}: {reached:.1%} on {len(data.test())} real test images")
    print(f"{folder.output}: {'may be shared' if document['private'] else document['reason']}")


def _release(network: Any, settings: Classifying, session: Session, folder: RunDir) -> None:
    data = settings.dataset
    origin = {"method": settings.method.name, "dataset": data.name, **data.guarantee()}
    document = certificate(
        session.ledger,
        identity=session.run.noise.identity(),
        size=data.num_private,
        unit=settings.privacy.unit,
        noise_seed=settings.privacy.noise_seed,
        assumptions=data.assumptions(),
        provenance=origin,
    )

    def write(target: Path) -> None:
        save_file(
            {name: p.detach().cpu().contiguous() for name, p in network.state_dict().items()}, target / "classifier.safetensors"
        )
        kind = {"classifier": settings.method.classifier.value, "norm": "group", "shape": data.shape, "classes": data.classes}
        write_json(target / "classifier.json", kind)
        seal(target, document, settings.privacy.signing_key)

    folder.publish(write, private=document["private"])


def _composed(overrides: list[str]) -> DictConfig:
    return compose_script("dp_classifier", Classifying, overrides)


def _check(settings: Classifying) -> None:
    refuse_added_keys(settings)
    check_device(settings.device)
    require(0 <= settings.seed < 2**63, "seed", settings.seed, "from 0 to 2^63 - 1")
    settings.privacy.check()
    settings.dataset.check()
    settings.tracker.check()
    share = settings.privacy.selection_epsilon
    require(share is None, "privacy.selection_epsilon", share, "null, as nothing is selected here")
    settings.method.check_classifier(settings.dataset, settings.privacy)


if __name__ == "__main__":
    run_script(main, __doc__)
