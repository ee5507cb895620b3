"""A table or a figure of a paper: runs what is missing of it, then renders it.

    python -m scripts.paper table pe 1                      # at paper scale
    python -m scripts.paper figure dpd 9 scale=smoke        # on the embedded digits, in minutes
    python -m scripts.paper all all all scale=smoke
    python -m scripts.paper table loda 2 scale=hour seed=0,1,2 device=cuda
    python -m scripts.paper table loda 2 scale=hour run=false          # from what is finished alone

`all` stands for every kind, paper or number. `scale`: smoke, hour or paper. `run=false` starts nothing. Any other `key=value`
goes to every run; an experiment that has no such key is left out, which is said, and the exit status is 1. Finished runs are
found by the hash of their resolved configuration, and kept. Writes `out`/SCALE/PAPER_KIND_N: .md and .csv, with .tex or .svg and
.png; with other `key=value` into a folder below it that they name. By default `out` is runs/papers/internal, as numbers measured
on real data must not be shared as releases may.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.help import one_line, run_script
from disk import write_json
from errors import reject_unless, require
from pipeline.config import SCALES
from scripts.paper.figure import write_figure
from scripts.paper.index import write_index
from scripts.paper.runs import Measured, finished, refusal, run_missing
from scripts.paper.sheet import PAPERS, Kind, Sheet, every, known_as, load
from scripts.paper.table import write_table
from tracking.progress import console


def main(arguments: list[str]) -> None:
    # Setup
    words = [word for word in arguments if "=" not in word]
    if len(words) != 3:
        allowed = "a kind (table, figure, all), a paper and a number (see --help)"
        require(False, "arguments", " ".join(words) or "none", allowed)
    own, overrides = _split([word for word in arguments if "=" in word])
    scale, out, run = own.get("scale", "paper"), Path(own.get("out", "runs/papers/internal")), own.get("run", "true")
    require(run in ("true", "false"), "run", run, "true or false")
    require("release" not in out.resolve().parts, "out", out, "outside release/ folders, which may be shared")
    require(scale in SCALES, "scale", scale, f"one of {', '.join(SCALES)}")
    chosen = _chosen(*words)
    sheets = [(*names, replace(load(*names, scale), arguments=overrides)) for names in chosen]
    folder = out / scale / _folder_of(overrides)
    also = f" ARGS={shlex.quote(' '.join(overrides))}" if overrides else ""
    for *_, sheet in sheets:
        _told_apart(sheet, overrides)
    found: dict[str, list[Measured]] = {name: [] for name in _refusing(sheets, scale, overrides)}
    failed = list(found)
    folder.mkdir(parents=True, exist_ok=True)

    # Run
    for kind, paper, number, sheet in sheets:
        if scale not in sheet.scales:
            told = [f"{paper} {kind.value} {number}: not at scale {scale}, but at {' or '.join(sheet.scales)}.", *sheet.notes]
            console.print(" ".join(told), soft_wrap=True)
            continue
        for experiment in sheet.experiments:
            if experiment not in found:
                find = run_missing if run == "true" else finished
                found[experiment], status = find(experiment, scale, overrides)
                failed += [experiment] if status else []
        failed += _then(sheet, found) if run == "true" else []

        # Report
        stem = folder / f"{paper}_{kind.value}_{number}"
        again = f"make {kind.value} PAPER={paper} N={number} SCALE={scale}{also}"
        write = write_table if kind is Kind.table else write_figure
        paths = write(sheet, {name: found[name] for name in sheet.experiments}, stem, again)
        console.print(f"{paper} {kind.value} {number}: {', '.join(str(path) for path in paths)}", soft_wrap=True, highlight=False)
    if words == ["all"] * 3:
        console.print(f"{write_index(folder, scale, also)}", highlight=False, soft_wrap=True)
    if failed:
        print(f"{len(failed)} experiment(s) failed or left out, whose cells are empty: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def _split(words: list[str]) -> tuple[dict[str, str], list[str]]:
    own = dict(word.split("=", 1) for word in words if word.split("=")[0] in ("scale", "out", "run"))
    return own, [word for word in words if word.split("=")[0] not in own]


def _folder_of(overrides: list[str]) -> str:
    """What is rendered with overrides takes no other page's place: a readable part, and a digest as that may be of others too."""
    if not overrides:
        return ""
    whole = " ".join(overrides)
    return f"{re.sub(r'[^a-zA-Z0-9]+', '_', whole).strip('_')[:60]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _chosen(kind: str, paper: str, number: str) -> list[tuple[Kind, str, str]]:
    require(kind in ("all", *(k.value for k in Kind)), "kind", kind, "table, figure or all")
    require(paper == "all" or paper in PAPERS, "paper", paper, f"one of {', '.join(PAPERS)}, or all")
    there = [(k, p, n) for k, p, n in every() if kind in ("all", k.value) and paper in ("all", p)]
    found = there
    if number != "all":
        names = {(k, p): known_as(k, p, number) for k, p, _ in there}
        found = [(k, p, n) for k, p, n in there if n == names[k, p]]
    known = ", ".join(f"{k.value} {p} {n}" for k, p, n in there)
    require(bool(found), "number", number, f"one that is there ({known or 'none is'})")
    return found


def _told_apart(sheet: Sheet, overrides: list[str]) -> None:
    """Runs in one cell have to be seeds of one setting: a key of several values is the seed, one that an experiment varies
    itself, or one that tells rows, columns or points apart."""
    wheres = [*(row.where for row in sheet.rows), *(column.where for column in sheet.columns)]
    known = {"seed", *sheet.varied, *(key for where in wheres for key in where)}
    known |= {key.removesuffix(".name") for key in known}  # a group: method=pe,dp_diffusion
    if sheet.panels:
        known.add("privacy.epsilon" if sheet.x == "epsilon" else sheet.x)
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element().lstrip("+")
        problem = (
            f"runs that differ in it would be averaged ({sheet.source}); give one value, or several of {', '.join(sorted(known))}"
        )
        value = override.get_value_string()
        reject_unless(not override.is_sweep_override() or key in known, key, value, problem)
        known_values = [column.where.get(key) for column in sheet.columns]
        if known_values and None not in known_values:  # the columns differ in it
            values = override.sweep_string_iterator() if override.is_sweep_override() else [value]
            there = all(yaml.safe_load(one) in known_values for one in values)
            require(there, key, value, f"one of {', '.join(map(str, known_values))}, which {sheet.source} has columns for")


def _refusing(sheets: Sequence[tuple[Kind, str, str, Sheet]], scale: str, overrides: list[str]) -> list[str]:
    """The experiments that have no such keys or values, which is said; an error where that is true of all."""
    if not overrides:
        return []
    experiments = dict.fromkeys(name for *_, sheet in sheets if scale in sheet.scales for name in sheet.experiments)
    errors = {name: error for name in experiments if (error := refusal(name, scale, overrides))}
    if errors and len(errors) == len(experiments):
        raise next(iter(errors.values()))
    for name, error in errors.items():
        console.print(f"{name} is left out: {one_line(error)}", soft_wrap=True, highlight=False)
    return list(errors)


def _then(sheet: Sheet, found: dict[str, list[Measured]]) -> list[str]:
    """Have a release judged after its run; the names of experiments where that failed."""
    failed = []
    for experiment in sheet.experiments if sheet.then else []:
        for run in found[experiment][:1]:
            done = run.folder.internal / "then.json"
            assert sheet.then is not None
            places = {"run": run.folder.path, "release": run.folder.output}
            command = sheet.then.format(**{name: shlex.quote(str(place)) for name, place in places.items()})
            if done.exists() and done.read_text().strip() == f'"{command}"':
                continue
            same = [f"{key}={value}" for key in ("dataset.path", "device") if (value := run.setting(key)) is not None]
            if subprocess.run([sys.executable, "-m", *shlex.split(command), *same]).returncode:
                failed.append(f"{experiment}: {command}")
            else:
                write_json(done, command)
    return failed


if __name__ == "__main__":
    run_script(main, __doc__)
