"""Bring a store of sweeps that an earlier version wrote into today's form; what is in it already stays.

    python -m scripts.convert_store                       # runs/by_config
    python -m scripts.convert_store runs/by_config …      # others

There a run and its release lay in one folder, named by all settings; now a release has a folder of its own, and a name covers the
settings that differ from their defaults. Nothing is run, and nothing is lost: folders are renamed, and a release that several
runs had copies of is kept once. A run that named no δ keeps the one that it was certified with.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from conf.compose import from_stored
from conf.help import run_script
from errors import InputError
from store.identity import digest, plain
from store.run_dir import RunDir

OF_THE_RELEASE = ("release", "internal/not_for_release", "internal/checkpoints", "internal/ledger.jsonl", "internal/noise.key")
ALSO = ("internal/computed_with.json", "internal/cost.json", "metrics.jsonl")


def main(arguments: list[str]) -> None:
    stores = [Path(argument) for argument in arguments or ["runs/by_config"]]
    for store in stores:
        if not store.is_dir():
            raise InputError(f"{store}: is no folder; give the store of sweeps")
        found = [RunDir(path) for path in sorted(store.iterdir()) if RunDir(path).in_store and not path.is_symlink()]
        old = [run for run in found if run.config.exists() and not run.making.path.exists()]
        for run in old:
            print(f"{run.path.name} -> {convert(run).path.name}")
        print(f"{store}: {len(old)} of {len(found)} runs converted")


def convert(run: RunDir) -> RunDir:
    """Move one run of the old form to where its settings say; the run there."""
    values = yaml.safe_load(run.config.read_text())
    published = next((path for name in OF_THE_RELEASE[:2] if (path := run.path / name).is_dir()), None)
    if published is not None and values["privacy"].get("delta") is None:
        values["privacy"]["delta"] = yaml.safe_load((published / "privacy.json").read_text())["delta"]
        run.config.write_text(yaml.safe_dump(values, sort_keys=False))  # before its certificate goes elsewhere
    config = from_stored(values)
    target = RunDir(run.path.with_name(digest(config)))
    for place in (target, target.making):
        place.internal.mkdir(parents=True, exist_ok=True)
        place.config.write_text(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
    for name in (*OF_THE_RELEASE, *ALSO):
        source, kept = run.path / name, target.making.path / name
        if source.exists() and not kept.exists():
            shutil.move(source, kept)
    if (made := run.internal / "made_with.json").exists():
        shutil.copy(made, target.making.made_with)
    for source in sorted(path for path in run.path.rglob("*") if path.is_file()):
        own = target.path / source.relative_to(run.path)
        if not own.exists() and not any(source.is_relative_to(run.path / name) for name in OF_THE_RELEASE):
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, own)
    if run.path != target.path:
        shutil.rmtree(run.path)
    target.link_release()
    return target


if __name__ == "__main__":
    run_script(main, __doc__)
