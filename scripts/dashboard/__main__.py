"""One page of all runs: settings compared over their seeds, plots against ε, sample grids, and every run with its certificate.

    python -m scripts.dashboard                                    # the runs under runs/, into runs/dashboard.html
    python -m scripts.dashboard runs/sweeps/… out=sweep.html       # some runs
    python -m scripts.dashboard private_metrics=false              # without what was measured on real data
    python -m scripts.dashboard private=true                       # with the pictures of runs that are not private
    python -m scripts.dashboard published=mine.yaml                # other published points, {name, x, y, source} each; null: none

The page is one file that needs no server and no network. It holds numbers measured on real data (accuracy, distances, times),
so it must not be shared as a release may; `private_metrics=false` leaves out all that is under internal/. Of pictures it holds
release/grid.png alone, unless `private=true`. Runs that are unfinished, or cannot be read, are listed as such.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from conf.help import run_script
from disk import whole_file
from errors import reject_unless, require, unusable
from scripts.dashboard import comparison, folders, paper_points
from scripts.dashboard.page import page

RUNS = Path("runs")


@dataclass
class Settings:
    out: str = str(RUNS / "dashboard.html")
    private: bool = False
    private_metrics: bool = True
    published: str | None = str(Path(__file__).parents[2] / "conf" / "published.yaml")


def main(arguments: list[str]) -> None:
    # Setup
    places, settings = parse(arguments)
    out = Path(settings.out)
    points = paper_points.load(Path(settings.published)) if settings.published else []

    # Run
    contents = folders.Contents(private_pictures=settings.private, private_metrics=settings.private_metrics)
    base = out.parent.resolve()
    read = [folders.read(path, Path(os.path.relpath(path.resolve(), base)).as_posix(), contents) for path in folders.find(places)]
    details = {row["folder"]: of_run for row, of_run in read}
    rows = comparison.described(row for row, _ in read)
    about = {
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
        "places": [] if rows else [str(place) for place in places],
        "private": settings.private,
        "private_metrics": settings.private_metrics,
        "published": points,
        "comparison": comparison.compared(rows),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as file:
        for part in page(about, rows, [details[row["folder"]] for row in rows]):
            file.write(part.encode())

    # Report
    states = Counter(row["status"] for row in rows)
    counted = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "none yet"
    print(f"{out}: {len(rows)} {'run' if len(rows) == 1 else 'runs'} ({counted}), {out.stat().st_size / 1e6:.1f} MB")
    if rows and settings.private_metrics:
        print("it holds what was measured on real data, and must not be shared as a release may")


def parse(arguments: list[str]) -> tuple[list[Path], Settings]:
    """Folders, and key=value. Raises InputError for a folder that is not there and for an unknown key."""
    known = [field.name for field in fields(Settings)]
    given = [argument for argument in arguments if re.match(r"\w+=", argument) and not Path(argument).exists()]
    for key, _, value in (argument.partition("=") for argument in given):
        reject_unless(key in known, key, value, f"there is no such key; there are {', '.join(known)}")
    named = [Path(argument) for argument in arguments if argument not in given]
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli(given)))
    for place in named:
        reject_unless(place.is_dir(), "runs", place, "there is no such folder")
    out = Path(settings.out)
    reject_unless(not out.is_dir(), "out", out, "it is a folder; give a file")
    require("release" not in out.resolve().parts, "out", out, "outside release/ folders, which may be shared")
    above = next((parent for parent in out.parents if parent.exists()), Path())
    reject_unless(above.is_dir(), "out", out, f"{above} is a file")
    if settings.private and not settings.private_metrics:
        raise unusable("private", "true", "with private_metrics=false nothing private is wanted; give one of them")
    return named or [RUNS], settings  # where no run was made yet, an empty page


if __name__ == "__main__":
    run_script(main, __doc__)
