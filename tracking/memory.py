"""The most main memory that a run held."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path


def forget_peak() -> None:
    """Start to measure: in a sweep a process runs one run after another. (Linux; elsewhere the peak is of the whole process.)"""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """GiB of resident memory at its peak."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)
