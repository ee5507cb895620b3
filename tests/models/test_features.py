"""Embeddings: vectors of images, each by itself."""

from __future__ import annotations

import numpy as np
import torch

from models.features.extractors import Pixels, PublicFeatures

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1)).astype(np.uint8)


def test_features_are_float_vectors_that_do_not_depend_on_the_batch():
    features = PublicFeatures(dim=12)
    vectors = features.embed(IMAGES)
    assert (vectors.dtype, vectors.shape) == (np.float32, (30, 12))
    for rows in (slice(0, 1), slice(3, 10)):
        assert np.array_equal(features.embed(IMAGES[rows]), vectors[rows])
    assert np.array_equal(features.embed(np.asfortranarray(IMAGES)), vectors)
    assert np.allclose(features.embed(IMAGES[::-1]), vectors[::-1], atol=1e-5)


def test_features_are_what_the_classifier_s_head_reads():
    features = PublicFeatures(channels=3, num_classes=5)
    colour = IMAGES.repeat(3, axis=3)
    with torch.inference_mode():
        logits = features.head(torch.from_numpy(features.embed(colour)))
        expected = features(torch.from_numpy(colour).permute(0, 3, 1, 2) / 127.5 - 1)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_no_images_have_no_vectors():
    assert PublicFeatures(dim=12).embed(IMAGES[:0]).shape == (0, 12)


def test_pixels_are_scaled_and_flat():
    vectors = Pixels().embed(IMAGES)
    assert (vectors.dtype, vectors.shape) == (np.float32, (30, 64))
    assert np.allclose(vectors * 255, IMAGES.reshape(30, 64))
