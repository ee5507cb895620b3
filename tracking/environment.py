"""Which program on which machine: what a reader needs to make a number again."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def environment(device: torch.device | None = None) -> dict[str, str]:
    """`commit` (where this is a checkout; with a + where its files, but for documentation, differ from it), `processor` (that of
    `device`; by default the CPU), `threads`, `torch`."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs", ":!*.md") else ""
    on_gpu = device is not None and device.type == "cuda"
    return {
        **({"commit": commit + changed} if commit else {}),
        "processor": torch.cuda.get_device_name(device) if on_gpu else f"{_processor()} of {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def program_version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def format_environment(made: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in made.items())


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.machine()
