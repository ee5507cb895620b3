"""Private embeddings: in blocks, each of an image alone, computed once where that takes a network."""

from __future__ import annotations

import numpy as np
import pytest

import pe.embedded
from data.images import conform
from data.samples import SampleSet
from models.features.extractors import Pixels, PublicFeatures
from pe.embedded import PrivateEmbeddings

SAMPLES = SampleSet(np.random.default_rng(0).integers(0, 256, (1300, 4, 4, 1)).astype(np.uint8), np.arange(1300) % 3, 3)
SHAPE = (8, 8, 1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pe.embedded, "BLOCK", 512)


@pytest.mark.parametrize("embedding", [Pixels(), PublicFeatures()], ids=["pixels", "network"])
def test_blocks_are_bitwise_the_embedding_of_everything(embedding):
    vectors, rows = zip(*PrivateEmbeddings(embedding, SHAPE).blocks(SAMPLES), strict=True)
    assert [len(part) for part in vectors] == [512, 512, 276]
    assert np.array_equal(np.concatenate(vectors), embedding.embed(conform(SAMPLES.images, SHAPE)))
    assert np.array_equal(np.concatenate([SAMPLES.labels[part] for part in rows]), SAMPLES.labels)


def test_a_network_embeds_every_private_image_once_a_run(monkeypatch):
    network, seen = PublicFeatures(), []
    original = network.embed

    def embed(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return original(images)

    monkeypatch.setattr(network, "embed", embed)
    there = PrivateEmbeddings(network, SHAPE)
    first, second = list(there.blocks(SAMPLES)), list(there.blocks(SAMPLES))
    assert sum(seen) == len(SAMPLES)
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))
