"""Where samples are judged: in the space of the dataset, whichever model made them, or in the one that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.embedded import EMBEDDED
from models.features.extractors import PublicFeatures
from models.features.spaces import EmbeddingName, Spaces
from pipeline.report import evaluator_settings, load_references
from store.identity import digest
from tests.command import typed
from tests.rejects import rejects

FEATURES, CPU = EmbeddingName.public_features, torch.device("cpu")
UNET = ["model=diffusers", f"model.pretrained={EMBEDDED / 'digits'}", "model.labels=10", "model.null_label=true"]


def stored(folder: Path, **sizes: int) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(PublicFeatures(**sizes).state_dict(), folder / "features.safetensors")
    return folder


def test_another_generator_of_digits_is_judged_where_the_embedded_one_is():
    ours, other = typed("method=dp_diffusion"), typed("method=dp_diffusion", *UNET)
    assert other.model.spaces.features is None
    assert other.spaces == ours.spaces == Spaces(features="digits")
    assert evaluator_settings(other) == evaluator_settings(ours)
    assert load_references(other) is not None
    assert typed("method=dp_diffusion", *UNET, "model.features=digits").spaces == ours.spaces


def test_elsewhere_it_is_the_models_own_space_unless_one_is_asked_for(tmp_path):
    elsewhere = typed("method=dp_diffusion", "dataset=mnist", "model=mnist_unet")
    assert elsewhere.spaces == elsewhere.model.spaces == Spaces(features="pretrained/printed28")
    folder = stored(tmp_path / "own")
    asked = typed(f"eval.features={folder}")
    assert (asked.spaces.features, asked.model.spaces.features) == (str(folder), "digits")
    assert evaluator_settings(asked) != evaluator_settings(typed())
    assert digest(asked).split("-")[0] == digest(typed()).split("-")[0]  # the release does not depend on it


def test_an_extractor_is_of_the_sizes_in_its_file(tmp_path):
    spaces = Spaces(features=str(stored(tmp_path, channels=3, num_classes=5, width=16, dim=24)))
    embedding = spaces.on(CPU)[FEATURES]
    vectors = embedding.embed(np.zeros((2, 8, 8, 3), np.uint8))
    assert vectors.shape == (2, 24) == (2, spaces.cost(FEATURES, (8, 8, 3))[1])
    assert isinstance(embedding, PublicFeatures)
    assert embedding.logits(vectors).shape == (2, 5)
    with rejects("eval.x", FEATURES, " 3 channels", " 1"):
        spaces.require_channels("eval.x", FEATURES, 1)
    spaces.require_channels("eval.x", FEATURES, 3)
    spaces.require_channels("eval.x", EmbeddingName.pixels, 1)


def test_features_for_other_images_are_refused_by_the_key_that_names_them(tmp_path):
    folder = stored(tmp_path, channels=3)
    with rejects("eval.frechet.embedding", FEATURES, f"eval.features={folder}"):
        typed(f"eval.features={folder}")
    with rejects("method.embedding", FEATURES, f"model.features={folder}"):
        typed("method=pe", "method.embedding=public_features", f"model.features={folder}", "eval=none")


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_a_folder_without_an_extractor_is_refused(tmp_path, content):
    spaces = Spaces(features=str(tmp_path), key="eval.features")
    if content is None:
        with rejects("eval.features", tmp_path, "features.safetensors"):
            spaces.prepare({FEATURES})
        return
    (tmp_path / "features.safetensors").write_bytes(content)
    with rejects("eval.features", tmp_path, "features.safetensors"):
        spaces.on(CPU)[FEATURES]
