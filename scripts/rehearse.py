"""A sweep on public images in the place of the private ones: which settings to use, at no cost in privacy.

    python -m scripts.rehearse method=dp_moments method.cells=1,2,8                # the embedded digits: printed ones stand in
    python -m scripts.rehearse dataset=mnist dataset.public_name=svhn …            # half of the public images stand in
    python -m scripts.rehearse … privacy.epsilon=1 seed=0,1,2                      # each setting three times, for a spread

Any settings of `run.py` may be given, several values with commas between them. No private image is opened. Settings are judged by
the accuracy of `eval.downstream` on public images that no run has seen; `seed` is no setting but a repetition. It prints the
settings to use and the command. Runs lie in runs/rehearsals: what is finished is kept, and the same command goes on.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.compose import combinations, compose
from conf.help import goes_on_with, run_script
from data.datasets.rehearsed import rehearsal_of
from errors import reject_unless, require
from eval.downstream import mean_and_spread
from pipeline import run
from pipeline.config import Config
from store.identity import digest
from tracking.results import accuracy

STORE = Path("runs/rehearsals")
Settings = tuple[str, ...]


def main(overrides: list[str]) -> None:
    # Setup
    sweep = combinations([override for override in overrides if override not in ("-m", "--multirun")])
    runs = [(_without_seed(one), _rehearsed(one)) for one in sweep]
    for _, config in runs:
        config.check()
    differing = [place for place in zip(*(settings for settings, _ in runs), strict=True) if len(set(place)) > 1]
    swept = {override for place in differing for override in place}
    first = runs[0][1]
    size, wanted, tested = first.dataset.num_private, compose(sweep[0]).dataset.num_private, first.dataset.num_test
    print(f"{first.dataset.name}: {size:,} public images are taken for the {wanted:,} private ones; {tested:,} others judge")

    # Run
    found: dict[Settings, list[float]] = defaultdict(list)
    for settings, config in runs:
        result = run(config, STORE / digest(config), keep_finished=True, goes_on_with=_again(overrides))
        assert result is not None
        score = accuracy(result.metrics)
        assert score is not None
        found[settings].append(score)

    # Report
    best = max(found, key=lambda settings: mean_and_spread(found[settings])[0])
    table = Table(title="Accuracy on public images, %")
    for column in ("settings", "mean", "spread", "runs", ""):
        table.add_column(column, justify="left" if column == "settings" else "right")
    for settings, scores in found.items():
        mean, spread = mean_and_spread(scores)
        told = " ".join(override for override in settings if override in swept) or "(one setting)"
        table.add_row(told, f"{100 * mean:.1f}", f"{100 * spread:.1f}", str(len(scores)), "best" if settings == best else "")
    Console().print(table)
    print("This has spent nothing of the private images. The command:")
    print(f"    {goes_on_with('run.py', best)}")


def _without_seed(overrides: list[str]) -> Settings:
    return tuple(override for override in overrides if not override.startswith("seed="))


def _rehearsed(overrides: list[str]) -> Config:
    config = compose(overrides)
    config.dataset.check()
    require(config.selection is None, "selection", "private", "left out, as a rehearsal costs nothing")
    require(not config.plan_only, "plan_only", True, "left out, as a rehearsal costs nothing")
    judged = config.method.released_classifier is not None or (config.eval.downstream.enabled and config.method.conditional)
    reject_unless(judged, "eval.downstream.enabled", config.eval.downstream.enabled, "a rehearsal is judged by it, on classes")
    return replace(config, dataset=rehearsal_of(config.dataset))


def _again(overrides: list[str]) -> str:
    return f"python -m scripts.rehearse {shlex.join(overrides)}"


if __name__ == "__main__":
    run_script(main, __doc__)
