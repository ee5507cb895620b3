"""A public linear basis: an image becomes a short vector of norm at most 1, and a vector an image.

Nothing here is private: a basis is made from public images or from constants alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.fft import dctn, idctn

from models.api import Denoiser
from models.passes import embed_in_passes

_LUMA_CHROMA = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])  # orthonormal; luma first
_PASS_ROWS = 64  # images that are encoded at a time
_CHROMA_SHARE = 0.18  # of the coefficients, for each of two chroma planes


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions around a public image. `offset` is that image, [H, W, C]; pixels count 0 … 1 here."""

    offset: np.ndarray

    @property
    def size(self) -> int:
        """d, of a vector."""
        raise NotImplementedError

    def to_vectors(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to float64 [N, d]; the offset becomes the zero vector, no vector is longer than its image."""
        return self.coefficients(images / 255.0 - self.offset)

    def to_images(self, z: np.ndarray) -> np.ndarray:
        """float64 [N, d] to uint8 [N, H, W, C]."""
        return np.round((self.pixels(z) + self.offset).clip(0, 1) * 255).astype(np.uint8)

    def coefficients(self, x: np.ndarray) -> np.ndarray:
        """float64 [N, H, W, C] to [N, d], linear."""
        raise NotImplementedError

    def pixels(self, z: np.ndarray) -> np.ndarray:
        """The other way."""
        raise NotImplementedError


@dataclass(frozen=True)
class DCT(Basis):
    """The lowest `count` frequencies of the discrete cosine transform (type II, orthonormal); of colour, most are luma's."""

    count: int

    @cached_property
    def _kept(self) -> list[np.ndarray]:
        """Of each plane, the places of the coefficients that are kept, lowest frequency first."""
        height, width, channels = self.offset.shape
        i, j = np.mgrid[:height, :width]
        order = np.argsort(((i / height) ** 2 + (j / width) ** 2).ravel(), kind="stable")
        chroma = round(_CHROMA_SHARE * self.count) if channels == 3 else 0
        luma = min(self.count - 2 * chroma, len(order))
        return [order[:luma], *[order[: (self.count - luma) // 2]] * (channels - 1)]

    @property
    def size(self) -> int:
        return sum(map(len, self._kept))

    def coefficients(self, x: np.ndarray) -> np.ndarray:
        planes = x @ _LUMA_CHROMA.T if x.shape[3] == 3 else x
        spectrum = dctn(planes, axes=(1, 2), norm="ortho").reshape(len(x), -1, x.shape[3])
        return np.concatenate([spectrum[:, kept, plane] for plane, kept in enumerate(self._kept)], 1)

    def pixels(self, z: np.ndarray) -> np.ndarray:
        height, width, channels = self.offset.shape
        spectrum, start = np.zeros((len(z), height * width, channels)), 0
        for plane, kept in enumerate(self._kept):
            spectrum[:, kept, plane] = z[:, start : start + len(kept)]
            start += len(kept)
        planes = idctn(spectrum.reshape(len(z), height, width, channels), axes=(1, 2), norm="ortho")
        return planes @ _LUMA_CHROMA if channels == 3 else planes


@dataclass(frozen=True)
class PrincipalComponents(Basis):
    """Of public images, largest variance first."""

    vectors: np.ndarray  # float64 [d, H·W·C], orthonormal rows

    @property
    def size(self) -> int:
        return len(self.vectors)

    def coefficients(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1) @ self.vectors.T

    def pixels(self, z: np.ndarray) -> np.ndarray:
        return (z @ self.vectors).reshape(len(z), *self.offset.shape)


@dataclass(frozen=True)
class PrincipalLatents(PrincipalComponents):
    """The same of what a public model works on: `offset` is [c, h, w]. Samples are as sharp as its decoder."""

    denoiser: Denoiser

    @classmethod
    def of(cls, denoiser: Denoiser, images: np.ndarray, count: int) -> PrincipalLatents:
        """Of public images, uint8 [N, H, W, C]."""
        x = _encoded(denoiser, images)
        shape = denoiser.dummy_inputs(1)[0].shape[1:]
        return cls(x.mean(0).reshape(shape), _principal(x, count), denoiser)

    def to_vectors(self, images: np.ndarray) -> np.ndarray:
        return self.coefficients(_encoded(self.denoiser, images) - self.offset.reshape(1, -1))

    def to_images(self, z: np.ndarray) -> np.ndarray:
        return self.denoiser.decode(torch.from_numpy(self.pixels(z) + self.offset).float().to(self.denoiser.device))


def _encoded(denoiser: Denoiser, images: np.ndarray) -> np.ndarray:
    """float64 [N, c·h·w]; an image's row does not depend on the others, to the last bit."""
    dim = denoiser.dummy_inputs(1)[0].numel()
    return embed_in_passes(images, _PASS_ROWS, dim, lambda batch: denoiser.encode(batch).flatten(1)).astype(np.float64)


def principal_components(images: np.ndarray, count: int) -> np.ndarray:
    """float64 [d, H·W·C] of uint8 images [N, H, W, C]: the `count` directions of largest variance, or as many as there are."""
    return _principal(images.reshape(len(images), -1) / 255.0, count)


def _principal(x: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Of float64 [N, D]. Halko, Martinsson & Tropp (2011), by scikit-learn, where all of them would take long."""
    from sklearn.decomposition import PCA

    count = min(count, *x.shape)
    solver = "randomized" if x.shape[1] > 1024 else "full"
    return PCA(count, svd_solver=solver, random_state=seed).fit(x).components_


def largest_norm(shape: tuple[int, int, int]) -> float:
    """No image is further than this from mid-grey."""
    return 0.5 * math.sqrt(math.prod(shape))
