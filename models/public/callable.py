"""`model=callable model.factory=my_module:make_api`: the user's own image API, a remote service for one.

The factory is called without arguments and returns an object as `models.api` describes it. What it answers is kept on disk,
request by request, so a killed run asks for nothing twice; a request that fails, or whose answer has another shape, is made
again after a pause, and ends the run where that does not help.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING

from data.dataset import Dataset
from disk import whole_file
from errors import InputError, reason, reject_unless, require, unusable
from models.features.spaces import EmbeddingName
from models.public.settings import Model, PublicModel
from tracking import ranks
from tracking.progress import Advance, console

MISTAKES = (TypeError, AttributeError, NameError, ImportError, AssertionError, NotImplementedError)  # not worth another try


@dataclass(kw_only=True)
class CallableModel(Model):
    """Public labels 0 … labels - 1, degrees as the API has them. For Private Evolution and `public_only`."""

    name: str = "callable"
    factory: str = MISSING  # "module:function", importable from the working directory
    image_size: int = MISSING  # side of an image, in pixels
    image_channels: int = 3  # 1 (grey) or 3 (RGB)
    pretrained: str | None = "the API's own"
    request_size: int = 64  # images asked for at once
    requests_per_minute: float | None = None  # at most; null: no limit
    retries: int = 5  # of a request that fails
    retry_seconds: float = 1.0  # before the first repetition; doubled for every further one

    local = False

    @property
    def num_steps(self) -> int:
        return 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, self.image_channels)

    def check(self, dataset: Dataset) -> None:
        parts = self.factory.split(":")
        named = len(parts) == 2 and all([*parts[0].split("."), parts[1]])
        require(named, "model.factory", self.factory, "written as module:function")
        require(self.image_size >= 1, "model.image_size", self.image_size, "1 or more")
        require(self.image_channels in (1, 3), "model.image_channels", self.image_channels, "1 (grey) or 3 (RGB)")
        for key in ("labels", "request_size"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "1 or more")
        for key in ("retries", "retry_seconds"):
            require(0 <= getattr(self, key) < float("inf"), f"model.{key}", getattr(self, key), "0 or more")
        limit = self.requests_per_minute
        require(limit is None or 0 < limit < float("inf"), "model.requests_per_minute", limit, "a finite number above 0, or null")

    def check_respacing(self, key: str, respacing: str | None) -> None:
        require(respacing is None, key, respacing, f"null, as model={self.name} has no timesteps")

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        require(0 <= degree < float("inf"), key, degree, "a finite number that is 0 or more")

    def facts(self) -> dict[str, int | None]:
        return {"parameters": None, "flops": None}

    def assumptions(self) -> list[str]:
        return [f"what the user's own API {self.factory} answers is public, and was made without these private images"]

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int:
        return 1

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        super().prepare(embeddings)
        reject_unless(
            ranks.launched() == 1, "model", self.name, "there are several processes, and every one would ask for everything"
        )
        _ = self._api

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        api = RequestedAPI(
            api=self._api,
            factory=self.factory,
            image_shape=self.image_shape,
            num_labels=self.labels,
            size=self.request_size,
            retries=self.retries,
            retry_seconds=self.retry_seconds,
            pause=60 / self.requests_per_minute if self.requests_per_minute else 0.0,
        )
        return PublicModel(self.name, api, self.spaces.on(device))

    @functools.cached_property
    def _api(self) -> Any:
        module, function = self.factory.split(":")
        here = str(Path.cwd())
        sys.path.insert(0, here)
        try:
            api = getattr(importlib.import_module(module), function)()
        except (Exception, SystemExit) as error:  # whatever the user's own code does
            raise unusable("model.factory", self.factory, _with_place(error)) from error
        finally:
            sys.path.remove(here)
        for method in ("random", "variation"):
            require(
                callable(getattr(api, method, None)),
                "model.factory",
                self.factory,
                f"a function that makes an object with {method}(…), as in models/api.py",
            )
        return api


@dataclass
class RequestedAPI:
    """An image API in requests of at most `size` images: paced, repeated where they fail, and answered from `kept` if there."""

    api: Any
    factory: str  # for messages
    image_shape: tuple[int, int, int]
    num_labels: int
    size: int
    retries: int
    retry_seconds: float
    pause: float  # seconds from one request to the next
    kept: Path | None = None  # a folder where a run keeps the answers
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _last: float = -float("inf")

    def random(self, labels: np.ndarray, *, stream: str, advance: Advance | None = None) -> np.ndarray:
        return self._requests(
            len(labels), stream, advance, lambda rows, name: self.api.random(labels[rows], stream=name), [labels]
        )

    def variation(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        degree: float,
        *,
        stream: str,
        respacing: str | None = None,
        advance: Advance | None = None,
    ) -> np.ndarray:
        def ask(rows: slice, name: str) -> np.ndarray:
            return self.api.variation(images[rows], labels[rows], degree, stream=name)

        return self._requests(len(labels), f"{stream}/degree={degree}", advance, ask, [labels, images])

    def _requests(
        self, count: int, stream: str, advance: Advance | None, ask: Callable[[slice, str], np.ndarray], inputs: list[np.ndarray]
    ) -> np.ndarray:
        out = np.empty((count, *self.image_shape), np.uint8)
        for start in range(0, count, self.size):
            rows, name = slice(start, min(start + self.size, count)), f"{stream}/{start}"
            answer = self._answer(name, [array[rows] for array in inputs])
            if answer is not None and answer.exists():
                out[rows] = np.load(answer)
            else:
                out[rows] = self._asked(ask, rows, name)
                if answer is not None:
                    answer.parent.mkdir(parents=True, exist_ok=True)
                    with whole_file(answer) as file:
                        np.save(file, out[rows])
            if advance:
                advance(rows.stop - rows.start)
        return out

    def _asked(self, ask: Callable[[slice, str], np.ndarray], rows: slice, name: str) -> np.ndarray:
        attempt = 0
        while True:
            self.sleep(max(0.0, self._last + self.pause - self.clock()))
            self._last = self.clock()
            try:
                return self._fitting(np.asarray(ask(rows, name)), rows, name)
            except MISTAKES as error:
                raise unusable("model.factory", self.factory, _with_place(error)) from error
            except Exception as error:  # clients of remote services have errors of their own
                if attempt == self.retries:
                    if isinstance(error, InputError):
                        raise
                    times = f"{self.retries + 1} time{'s' if self.retries else ''}"
                    raise SystemExit(f"request {name} failed {times}: {reason(error)}; the same command goes on") from error
                wait = self.retry_seconds * 2**attempt
                console.print(f"request {name}: {reason(error)}; again in {wait:g} s", highlight=False)
                self.sleep(wait)
                attempt += 1

    def _fitting(self, answer: np.ndarray, rows: slice, name: str) -> np.ndarray:
        shape = (rows.stop - rows.start, *self.image_shape)
        if answer.dtype != np.uint8 or answer.shape != shape:
            raise unusable(
                "model.factory", self.factory, f"{name} gave {answer.dtype} {list(answer.shape)}, not uint8 {list(shape)}"
            )
        return answer

    def _answer(self, name: str, inputs: list[np.ndarray]) -> Path | None:
        """Where the answer to this request is: the same question has the same name."""
        if self.kept is None:
            return None
        digest = hashlib.blake2b(name.encode(), digest_size=16)
        for array in inputs:
            digest.update(np.ascontiguousarray(array).tobytes())
        return self.kept / "requests" / f"{digest.hexdigest()}.npy"


def _with_place(error: BaseException) -> str:
    """What the user's own code raised, and the last line of theirs that it passed through."""
    libraries = (__file__, "<", *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {reason(error)}{place}"
