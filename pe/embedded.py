"""Private images in the space where they vote, in blocks: all of them enlarged, or as floats, would fill the memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data.images import conform
from data.samples import SampleSet
from models.api import Embedding
from models.features.extractors import Pixels

BLOCK = 4096  # images; a multiple of what embeddings take in one pass


class PrivateEmbeddings:
    """Of images conformed to `shape` (H, W, C). A network embeds them once a run, as it is slow; pixels are made every round."""

    def __init__(self, embedding: Embedding, shape: tuple[int, int, int]):
        self._embedding, self._shape = embedding, shape
        self._keep = not isinstance(embedding, Pixels)
        self._kept: dict[int, np.ndarray] = {}

    def blocks(self, samples: SampleSet) -> Iterator[tuple[np.ndarray, slice]]:
        """float32 [n, D] and which samples they are, n up to `BLOCK`; always of the same samples."""
        for start in range(0, len(samples), BLOCK):
            rows = slice(start, start + BLOCK)
            vectors = self._kept.get(start)
            if vectors is None:
                vectors = self._embedding.embed(conform(samples.images[rows], self._shape))
                if self._keep:
                    self._kept[start] = vectors
            yield vectors, rows
