"""Everything that one run is told, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from data.dataset import Dataset
from errors import reject_unless, require, unusable
from eval.config import Evaluation
from method import Method
from models.classifiers.networks import ClassifierName
from models.features.spaces import Spaces
from models.public.settings import Model
from privacy.config import Privacy, PrivateSelection
from privacy.inherited import PublicInput
from tracking.tracker import TrackerConfig

MISSING: Any = "???"  # what a schema has where an option must be chosen
SCALES = ("paper", "hour", "smoke")  # the printed setting; one GPU and about an hour; two cores, the embedded digits and seconds


@dataclass(kw_only=True)
class Config:
    dataset: Dataset = MISSING
    method: Method = MISSING
    model: Model = MISSING
    privacy: Privacy = MISSING
    eval: Evaluation = MISSING
    tracker: TrackerConfig = MISSING
    seed: int = 0  # everything but privacy noise
    device: str = "auto"  # auto (a CUDA GPU where there is one), cpu, cuda or cuda:N
    scale: str = "paper"  # how far a paper's experiment is shrunk: +scale=hour, +scale=smoke
    plan_only: bool = False  # print what it would cost, and open no private image
    selection: PrivateSelection | None = None  # +selection=private: the settings of a sweep are candidates, and one is released

    def __post_init__(self) -> None:
        tell_unit(self.dataset, self.privacy)

    def check(self) -> None:
        """Raise InputError for any key, range or combination that cannot run. Opens no image and writes nothing."""
        refuse_added_keys(self)
        require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1")
        check_device(self.device)
        require(self.scale in SCALES, "scale", self.scale, f"one of {', '.join(SCALES)}")
        self.privacy.check()
        self.dataset.check()
        self.model.check(self.dataset)
        self.method.check(self.dataset, self.model, self.privacy)
        self.judging.check(self.dataset, self.model)
        for name, evaluator in self.judging.evaluators.items():
            if self.method.released_classifier:
                evaluator.check_classifier(f"eval.{name}")
            else:
                evaluator.check_sizes(f"eval.{name}", self.dataset, self.method.released(self.dataset))
        self.tracker.check()
        share, downstream = self.privacy.selection_epsilon, self.eval.downstream
        classes = self.method.conditional and len(self.dataset.classes) > 1 and not self.method.released_classifier
        choosing = downstream.enabled and len(downstream.candidates) > 1 and classes
        allowed = "null, as eval.downstream has nothing to choose from (see eval.downstream.choose_from)"
        require(share is None or choosing, "privacy.selection_epsilon", share, allowed)

    def public_inputs(self) -> list[PublicInput]:
        """What the release depends on and is taken as public: weights, features, images that the user brings."""
        model = self.model.public_inputs(self.method.embeddings()) if self.method.uses_model else []
        return [*model, *self.dataset.public_inputs()]

    @property
    def judging(self) -> Evaluation:
        """`eval`, but for evaluators that judge samples where the method releases a classifier."""
        return self.eval.of_classifiers() if self.method.released_classifier else self.eval

    @property
    def tested_classifier(self) -> ClassifierName:
        """Whose accuracy on real test images a run tells: of what is released, or else of what is trained on it."""
        return self.method.released_classifier or self.eval.downstream.classifier

    def notes(self) -> list[str]:
        """What the start of a run tells of settings that do nothing in it."""
        idle = [f"eval.{name}" for name in self.eval.evaluators if name not in self.judging.evaluators]
        if not idle:
            return []
        verb = "judges" if len(idle) == 1 else "judge"
        return [f"method={self.method.name} releases a classifier and no samples, which {', '.join(idle)} {verb}: left out."]

    @property
    def spaces(self) -> Spaces:
        """Where samples are judged."""
        return self.eval.spaces(self.dataset, self.model)

    @property
    def delta(self) -> float:
        return self.privacy.delta_for(self.dataset.num_private)

    @property
    def torch_device(self) -> torch.device:
        return torch_device(self.device)


def tell_unit(dataset: Dataset, privacy: Privacy) -> None:
    """The dataset learns what it counts, and whose images it keeps together. Where either is still missing nothing happens."""
    if isinstance(dataset, Dataset) and isinstance(privacy, Privacy):
        dataset.unit = privacy.unit


def check_device(device: str) -> None:
    kinds = ("auto", "cpu", "cuda")
    well_formed = device in kinds or (device.startswith("cuda:") and device[5:].isdecimal())
    require(well_formed, "device", device, f"one of {', '.join(kinds)} or cuda:N")
    index = int(device[5:] or "0") if device.startswith("cuda") else -1
    problem = f"{torch.cuda.device_count()} CUDA GPUs are here"
    reject_unless(index < torch.cuda.device_count(), "device", device, problem)


def torch_device(device: str) -> torch.device:
    """`auto` is a CUDA GPU where there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if device == "auto" else device)


def refuse_added_keys(component: Any, prefix: str = "") -> None:
    """`+method.iteratons=3` adds a key that nothing would read."""
    names = [field.name for field in fields(component)]
    known = {name for cls in type(component).__mro__ for name in vars(cls)}  # values that a property keeps
    for name, value in vars(component).items():
        if name not in names and name not in known:
            raise unusable(f"{prefix}{name}", value, f"there is no such key; there are {', '.join(names)}")
        if is_dataclass(value) and name in names:
            refuse_added_keys(value, f"{prefix}{name}.")
