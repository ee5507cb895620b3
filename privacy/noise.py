"""Noise that nobody can predict and a resumed run can repeat.

A run has one secret 256-bit key from the operating system's entropy. Every purpose ("pe.votes/round=3") gets its own
stream of SHAKE-256 output under that key, so noise depends on (key, purpose) alone: a run that was killed and resumed
draws the same noise again instead of fresh noise, and spends nothing twice. `privacy.noise_seed` derives the key from a
number instead, for debugging: anyone who knows the number can subtract the noise.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.special import ndtri

_BLOCK = 1 << 14


class NoiseSource:
    def __init__(self, key: bytes):
        self._key = key

    @classmethod
    def for_run(cls, path: Path, noise_seed: int | None) -> NoiseSource:
        """The run's key: read from `path` where an earlier start saved it, else drawn, saved and synced before first use."""
        if noise_seed is not None:
            return cls(hashlib.sha256(f"noise_seed={noise_seed}".encode()).digest())
        if not path.exists():
            cls(secrets.token_bytes(32)).save(path)
        key = path.read_bytes()
        if len(key) != 32:
            raise ValueError(f"{path} holds {len(key)} bytes, not the 32 of a noise key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Whole or not at all, for its owner's eyes."""
        fresh = path.with_suffix(".partial")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, self._key)
        os.fsync(descriptor)
        os.close(descriptor)
        os.replace(fresh, path)

    def part(self, purpose: str) -> NoiseSource:
        """Another one, with a key that follows from this one and tells nothing of it."""
        return NoiseSource(self.stream(purpose).bytes(32))

    def seed(self, purpose: str) -> int:
        """63 secret bits for a generator of another library, where draws only have to be unpredictable to an observer."""
        return int.from_bytes(hashlib.blake2b(purpose.encode(), key=self._key, digest_size=8).digest(), "big") >> 1

    def identity(self) -> str:
        """16 hexadecimal digits that name the release of this run, and tell nothing of the key."""
        return f"{self.seed('release/id'):016x}"

    def stream(self, purpose: str) -> NoiseStream:
        """From its start, each time it is asked for: two statistics with the same noise tell their difference."""
        return NoiseStream(hashlib.blake2b(purpose.encode(), key=self._key, digest_size=32).digest())


class NoiseStream:
    """A reproducible, unpredictable source of bits and of the noises made from them."""

    def __init__(self, key: bytes):
        self._key, self._counter, self._buffer, self._at = key, 0, b"", 0

    def bytes(self, count: int) -> bytes:
        parts = []
        while count > 0:
            if self._at == len(self._buffer):
                self._buffer = hashlib.shake_256(self._key + self._counter.to_bytes(16, "big")).digest(_BLOCK)
                self._counter, self._at = self._counter + 1, 0
            part = self._buffer[self._at : self._at + count]
            self._at, count = self._at + len(part), count - len(part)
            parts.append(part)
        return b"".join(parts)

    def below(self, bound: int) -> int:
        """A uniform integer in 0 … bound - 1, exactly."""
        bits = (bound - 1).bit_length()
        while True:
            value = int.from_bytes(self.bytes((bits + 7) // 8), "big") >> (-bits % 8)
            if value < bound:
                return value

    def uniform(self, size: int) -> np.ndarray:
        """float64 [size], multiples of 2^-52 shifted by half a step: inside (0, 1), both ends excluded."""
        return ((self._words(size) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def bernoulli(self, rate: float, size: int) -> np.ndarray:
        """bool [size], each true with probability floor(2^64 rate) / 2^64: `rate` itself from 2^-11 on, never above it."""
        below = int(rate * 2.0**64)  # of the 2^64 words
        return self._words(size) <= np.uint64(below - 1) if below else np.zeros(size, bool)

    def gaussian(self, sigma: float, size: int) -> np.ndarray:
        """float64 [size] of N(0, sigma²), by inversion of a sign and a tail of 63 bits: up to 9.1 sigma.

        Floating point: its low bits are not protected (Mironov 2012).
        """
        words = self._words(size)
        tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64  # in (0, 1/2]
        signs = 1.0 - 2.0 * (words & np.uint64(1)).astype(np.float64)
        return sigma * signs * ndtri(tail)

    def _words(self, size: int) -> np.ndarray:
        """uint64 [size], uniform."""
        return np.frombuffer(self.bytes(8 * size), dtype=">u8").astype(np.uint64)

    def discrete_gaussian(self, sigma: float, size: int) -> np.ndarray:
        """int64 [size] with P(x) ∝ exp(-x² / 2σ²), exactly: Canonne, Kamath & Steinke (2020), Alg. 3."""
        a, b = (Fraction(sigma) ** 2).as_integer_ratio()
        t = int(sigma) + 1
        out = np.empty(size, np.int64)
        for i in range(size):
            while True:
                y = self._discrete_laplace(t, 1)
                if self._bernoulli_exp((abs(y) * t * b - a) ** 2, 2 * a * b * t * t):
                    break
            out[i] = y
        return out

    def discrete_laplace(self, epsilon: float, size: int) -> np.ndarray:
        """int64 [size] with P(x) ∝ exp(-|x| epsilon), exactly: Canonne, Kamath & Steinke (2020), Alg. 2."""
        s, t = Fraction(epsilon).as_integer_ratio()
        return np.array([self._discrete_laplace(t, s) for _ in range(size)], dtype=np.int64)

    def permute_and_flip(self, scores: Sequence[int], epsilon: float) -> int:
        """The index of a high score, eps-DP where one example moves no score by more than 1: McKenna & Sheldon (2020), Alg. 1.

        In random order, the first is taken whose coin of probability exp((score - best) epsilon / 2) says so; exactly.
        """
        s, t = Fraction(epsilon).as_integer_ratio()
        order, best = list(range(len(scores))), max(scores)
        while True:
            i = order.pop(self.below(len(order)))
            if self._bernoulli_exp((best - int(scores[i])) * s, 2 * t):
                return i

    def _discrete_laplace(self, t: int, s: int) -> int:
        """P(x) ∝ exp(-|x| s / t)."""
        while True:
            u = self.below(t)
            if not self._bernoulli_exp(u, t):
                continue
            v = 0
            while self._bernoulli_exp(1, 1):
                v += 1
            magnitude, negative = (u + t * v) // s, self.below(2)
            if not (negative and magnitude == 0):
                return -magnitude if negative else magnitude

    def _bernoulli_exp(self, numerator: int, denominator: int) -> bool:
        """True with probability exp(-numerator / denominator), exactly (Alg. 1)."""
        while numerator > denominator:
            if not self._bernoulli_exp(1, 1):
                return False
            numerator -= denominator
        k = 1
        while self.below(denominator * k) < numerator:
            k += 1
        return k % 2 == 1
