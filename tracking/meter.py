"""What a method takes: time by the clock and of the processor, in all and by part, and memory. A killed run goes on counting.

Of several processes of one run it is what rank 0 takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from disk import write_json
from tracking.memory import peak_gib

SECONDS, CPU_SECONDS, MEMORY = "time/method_seconds", "time/method_cpu_seconds", "memory/peak_gib"
PART = f"{SECONDS}/part="
SAVE_SECONDS = 1.0  # a kill makes it forget about as much of what advances

T = TypeVar("T")


class Meter:
    """Counts from when it is made, on top of what `file` holds of processes before. Steps that are taken again count again."""

    def __init__(self, file: Path):
        self._file = file
        self._before: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        self._started, self._processor = time.monotonic(), time.process_time()
        self._parts: dict[str, float] = {}
        self._part, self._since = "", self._started
        self._saved = self._started

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens within is of this part, and of no other: not of one around it."""
        around = self._part
        self._turn_to(name)
        try:
            yield
        finally:
            self._turn_to(around)
            self.save()

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items: to make them is of this part, what is done with them is not."""
        iterator = iter(items)
        while True:
            with self.part(name):
                item = next(iterator, self)
            if item is self:
                return
            yield item  # type: ignore[misc]

    def save(self) -> None:
        """What was taken so far, for a run that goes on. Writes seldom: call it often within a long part."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            write_json(self._file, self._sums())
            self._saved = time.monotonic()

    def taken(self) -> dict[str, float]:
        """Seconds in all, those of the processor over all threads (other programs do not lengthen them), and by the clock of
        each part, "other" the rest; memory in GiB."""
        found = self._sums()
        if parts := [value for key, value in found.items() if key.startswith(PART)]:
            found[f"{PART}other"] = found[SECONDS] - sum(parts)
        return {key: round(value, 2) for key, value in found.items()}

    def _turn_to(self, part: str) -> None:
        now = time.monotonic()
        if self._part:
            key = PART + self._part
            self._parts[key] = self._parts.get(key, 0.0) + now - self._since
        self._part, self._since = part, now

    def _sums(self) -> dict[str, float]:
        self._turn_to(self._part)
        here = {SECONDS: self._since - self._started, CPU_SECONDS: time.process_time() - self._processor, **self._parts}
        before = self._before
        sums = {key: before.get(key, 0.0) + value for key, value in here.items()}
        return {**before, **sums, MEMORY: max(before.get(MEMORY, 0.0), peak_gib())}
