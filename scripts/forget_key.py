"""Delete the noise keys of a run that has its release, so that nobody can take the noise off any more.

    python -m scripts.forget_key run=runs/…               # or runs/sweeps/…/0, a run of a sweep

The release stays, can be evaluated, and verifies as before; the noise cannot be drawn again. A run without a release still needs
its key, and is refused. Copies elsewhere, in backups for one, are not found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from conf.help import run_script
from errors import reject_unless
from store.run_dir import RunDir


@dataclass
class Forgetting:
    run: str = MISSING


def main(arguments: list[str]) -> None:
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Forgetting), OmegaConf.from_cli(arguments)))
    path = Path(settings.run)
    run = RunDir(path, key="run")
    reject_unless(run.output is not None, "run", path, "it has no release yet, and cannot go on without its key")
    keys = sorted(run.noise_key.parent.rglob(run.noise_key.name))  # those of the runs that a selection compared, too
    for key in keys:
        key.unlink()
        print(f"deleted: {key}")
    if not keys:
        print("there is no noise key")


if __name__ == "__main__":
    run_script(main, __doc__)
