"""One seed policy for everything that is not privacy noise: initialisation, data order, generation.

Generation takes one stream per sample, so a result does not depend on batch size, device count or sharding.
Privacy noise never comes from here: see `privacy.noise`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose: streams of different purposes or seeds are independent."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "big") >> 1


def numpy_rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, purpose))


def torch_rng(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, purpose))


def sample_noise(seed: int, purpose: str, samples: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal float32 [len(samples), *shape]; row i depends on (seed, purpose, samples[i]) alone."""
    key = derive(seed, purpose)
    rows = [np.random.Generator(np.random.Philox(key=(key << 64) | int(i))).standard_normal(shape, np.float32) for i in samples]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty((0, *shape))
