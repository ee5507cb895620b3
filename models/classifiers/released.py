"""A classifier as a release holds it: its weights, and what it takes to build the network around them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data.samples import SampleSet
from disk import write_json
from errors import reason, unusable
from models.classifiers.networks import Classifier, ClassifierName, Norm
from models.classifiers.training import Recipe, logits
from models.features.extractors import weights_digest

WEIGHTS, BUILT = "classifier.safetensors", "classifier.json"


@dataclass
class ReleasedClassifier:
    """`network` takes images of `shape` (H, W, C), and answers with a logit for each of `classes`."""

    network: Classifier
    name: ClassifierName
    norm: Norm
    shape: tuple[int, int, int]
    classes: list[str]

    def save(self, folder: Path) -> None:
        weights = {name: p.detach().cpu().contiguous() for name, p in self.network.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        built = {"classifier": self.name.value, "norm": self.norm.value, "shape": self.shape, "classes": self.classes}
        write_json(folder / BUILT, built)

    @classmethod
    def load(cls, folder: Path | str) -> ReleasedClassifier:
        """InputError where `folder` holds none, or a damaged one."""
        folder = Path(folder)
        try:
            built = json.loads((folder / BUILT).read_text())
            name, norm, classes = ClassifierName(built["classifier"]), Norm(built["norm"]), list(built["classes"])
            height, width, channels = built["shape"]
            network = Recipe(classifier=name, norm=norm).network(channels, len(classes))
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise unusable("release", folder, f"it holds no classifier that can be read ({reason(error)})") from error
        return cls(network.eval(), name, norm, (height, width, channels), classes)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to int64 [N]: the place of each in `classes`."""
        unlabelled = SampleSet(images, np.zeros(len(images), np.int64), len(self.classes))
        return logits(self.network, unlabelled, torch.device("cpu")).argmax(1)

    def digest(self) -> str:
        """SHA-256 of its weights."""
        return weights_digest(self.network)
