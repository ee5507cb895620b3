"""Bring a store of sweeps that an earlier version wrote into today's form; what is in it already stays.

    python -m scripts.convert_store                       # runs/by_config
    python -m scripts.convert_store runs/by_config …      # others

There a run and its release lay in one folder, named by all settings; now a release has a folder of its own, and a name covers the
settings that differ from their defaults. Nothing is run, and nothing is lost: folders are renamed, and a release that several
runs had copies of is kept once. A run that named no δ keeps the one that it was certified with. What cannot be moved stays, and
is told: a run without a release, one that is running, and a second release of the same settings.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from conf.compose import from_stored
from conf.help import run_script
from disk import private_folder
from errors import InputError
from store.identity import digest, plain
from store.run_dir import RunDir

OF_THE_RELEASE = ("release", "internal/not_for_release", "internal/checkpoints", "internal/ledger.jsonl", "internal/noise.key")
MOVING = "being_moved"  # a key of its config.yaml, for a conversion that is killed
ALSO = ("internal/computed_with.json", "internal/cost.json", "metrics.jsonl")


def main(arguments: list[str]) -> None:
    stores = [Path(argument) for argument in arguments or ["runs/by_config"]]
    for store in stores:
        if not store.is_dir():
            raise InputError(f"{store} is no folder; give the store of sweeps.")
        found = [RunDir(path) for path in sorted(store.iterdir()) if RunDir(path).in_store and not path.is_symlink()]
        old = [run for run in found if run.config.exists() and not run.making.path.exists()]
        converted = 0
        for run in old:
            if reason := convert(run):
                print(f"{run.path}: stays as it is, {reason}")
            else:
                converted += 1
        print(f"{store}: {converted} of {len(found)} runs converted")


def convert(run: RunDir) -> str | None:
    """Move one run of the old form to where its settings say; or why it stays where it is."""
    output = next((path for name in OF_THE_RELEASE[:2] if (path := run.path / name).is_dir()), None)
    values = yaml.safe_load(run.config.read_text())
    moved = output is None and values.get(MOVING)
    if output is None and not moved:
        return "as it has not come to its release: the version that began it has to finish it"
    try:
        run.lock()
    except InputError:
        return "as another process is running there"
    values.pop(MOVING, None)
    if output is not None and values["privacy"].get("delta") is None:
        values["privacy"]["delta"] = yaml.safe_load((output / "privacy.json").read_text())["delta"]
    config = from_stored(values)
    target = RunDir(run.path.with_name(digest(config)))
    if output is not None and _of_another(run, output, target):
        run.close()
        return f"as {target.making.path.name} holds another release that was made with the same settings"
    run.config.write_text(yaml.safe_dump({**values, MOVING: True}, sort_keys=False))  # before its certificate goes elsewhere
    for place in (target, target.making):
        private_folder(place.internal)
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
    run.close()
    if run.path != target.path:
        shutil.rmtree(run.path)
    target.link_release()
    return None


def _of_another(run: RunDir, output: Path, target: RunDir) -> bool:
    """Whether what lies at the target is no copy of this run's release: it has another key, or another certificate."""
    pairs = [(run.path / "internal" / "noise.key", target.noise_key)]
    pairs += [(output / "privacy.json", folder / "privacy.json") for folder in (target.release, target.withheld)]
    return any(one.exists() and two.exists() and one.read_bytes() != two.read_bytes() for one, two in pairs)


if __name__ == "__main__":
    run_script(main, __doc__)
