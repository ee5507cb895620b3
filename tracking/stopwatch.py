"""What a method took, by the clock and in processor time."""

from __future__ import annotations

import time


class Stopwatch:
    """Started when made."""

    def __init__(self) -> None:
        self.clock, self.processor = time.time(), time.process_time()

    def times(self) -> dict[str, float]:
        """Seconds since then; those of the processor, over all threads, are the ones that other programs do not lengthen."""
        elapsed, processor = time.time() - self.clock, time.process_time() - self.processor
        return {"time/method_seconds": round(elapsed, 1), "time/method_cpu_seconds": round(processor, 1)}
