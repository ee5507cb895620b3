"""Where an ordinary training is, in one file that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from disk import whole_file


def save_training(path: Path, step: int, rng: torch.Generator, **parts: Any) -> None:
    """`parts`, by name: networks, optimizers and the like, which have a `state_dict`."""
    with whole_file(path) as file:
        torch.save({"step": step, "rng": rng.get_state(), **{name: part.state_dict() for name, part in parts.items()}}, file)


def load_training(path: Path, rng: torch.Generator, device: torch.device, **parts: Any) -> int:
    """The step that it was saved at, everything else as it was then; 0, and nothing changed, where there is none."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    rng.set_state(state["rng"].cpu())
    return state["step"]
