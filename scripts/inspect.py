"""What `dataset=…` would read, and what each method would cost on this machine, before anything is run.

    python -m scripts.inspect dataset=folder dataset.path=my_images dataset.image_size=64
    python -m scripts.inspect dataset=folder … "dataset.user_pattern='patient_([0-9]+)'" privacy.unit=user

Any settings of `run.py` may be given; methods are tried in turn, at ε = 1 and 10 or at `privacy.epsilon`. It opens
the headers of the files, uses no network, writes nothing and spends nothing. It prints exact
counts of private images: the page is for the person whose images these are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.compose import compose
from conf.help import run_script
from data.dataset import Dataset
from data.decoding import OnBad, decode
from data.listed import Listed
from data.overlap import pixel_digests
from data.survey import Survey, survey
from errors import InputError
from pipeline.config import Config
from pipeline.plan import Plan
from pipeline.plan_document import costs, hints
from privacy.mechanisms import Unit

METHODS = ("dp_moments", "pe", "dp_diffusion", "dp_loda", "dp_classifier")
BUDGETS = [1.0, 10.0]  # where none is asked for
console = Console()
MOST = 4  # kinds that are named before the others are counted together
BAD = 20  # images that cannot be used, and are named


def main(overrides: list[str]) -> None:
    config = compose(overrides)
    config.privacy.check()
    config.dataset.check()
    _tell("These numbers are exact, and so private: do not share this page.")
    _describe(config.dataset)
    _overlap(config.dataset)
    asked = config.privacy.epsilon if any(_key(one) == "privacy.epsilon" for one in overrides) else None
    _compare(overrides, BUDGETS if asked is None else [asked])


def _describe(dataset: Dataset) -> None:
    height, width, channels = dataset.shape
    _tell(f"{dataset.name}: read as {width}×{height} {'grey' if channels == 1 else 'colour'} of 8 bits")
    if not isinstance(dataset, Listed):
        _tell(f"{dataset.num_private_images:,} private images, {dataset.num_test:,} for tests, of {len(dataset.classes)} classes")
        return
    for note in dataset.layout_notes():
        _tell(note)
    for part, listing in zip(("private", "for tests"), dataset.listings, strict=True):
        if len(listing):
            _survey(part, survey(listing), dataset.reading.window is None, channels)
            if bad := decode(listing, dataset.shape, OnBad.skip, reading=dataset.reading).bad:
                _tell(f"  {len(bad)} cannot be used: {_first(bad)}")
    if dataset.unit is Unit.user:
        _tell(f"the unit of privacy is a user: {dataset.num_users:,} of them")


def _overlap(dataset: Dataset) -> None:
    """How many images for tests are also private. It says nothing where a bad image would stop a run."""
    if not dataset.num_test:
        return
    try:
        private = pixel_digests(dataset.private().images)
        shared = int(np.isin(pixel_digests(dataset.test().images), private).sum())
    except InputError:
        return
    if shared:
        _tell(f"{shared:,} of {dataset.num_test:,} images for tests are also private ones, pixel for pixel")
        if dataset.unit is Unit.user:
            _tell("  if that is one person under two names, ε protects each name separately, and not the person")


def _survey(part: str, found: Survey, narrow: bool, channels: int) -> None:
    images = sum(found.classes.values())
    _tell(f"{part}: {images:,} images; {_most(found.classes)}")
    _tell(f"  sizes {_most(Counter({f'{w}×{h}': n for (w, h), n in found.sizes.items()}))}; modes {_most(found.modes)}")
    if found.images_of_users:
        counts = found.images_of_users
        middle = counts[len(counts) // 2]
        _tell(f"  of {len(counts):,} users, with {counts[0]} to {counts[-1]} images each, median {middle}")
    if found.deepest is not None:
        low, high = found.deepest
        needs = "; dataset.window=[low,high] is needed" if narrow else ""
        _tell(f"  values of more than 8 bits go from {low:g} to {high:g}{needs}")
    if channels == 3 and set(found.modes) <= {"L", "1", "LA"}:
        _tell("  all are grey: dataset.image_channels=1 reads them as such")


def _compare(overrides: list[str], budgets: list[float]) -> None:
    title = "What a run would cost on this machine"
    table = Table("method", "ε", "noise multiplier", "time, without the judge", "memory, GiB", title=title)
    refused: dict[str, InputError] = {}
    told: dict[str, list[str]] = {}
    for name in METHODS:
        for epsilon in budgets:
            try:
                config = compose([*_others(overrides), f"method={name}", f"privacy.epsilon={epsilon}"])
                cells, found = _cost(config)
                table.add_row(name, f"{epsilon:g}", *cells)
                for hint in found:
                    told.setdefault(hint, []).append(f"{name} at ε = {epsilon:g}")
            except InputError as error:
                refused[name] = error
                break
    if table.row_count:
        console.print(table)
    for hint, where in told.items():
        _tell(f"{', '.join(where)}: {hint}")
    without = [name for name, problem in refused.items() if problem.key in ("model", "model.pretrained")]
    if without:
        _tell(f"{', '.join(without)}: a public model is needed; docs/public-models.md says how to get one")
    for name, problem in refused.items():
        if name not in without:
            _tell(f"{name}: {problem}")


def _cost(config: Config) -> tuple[list[str], list[str]]:
    """The cells of a row, and hints."""
    config.check()
    plan = Plan.of(config)
    work = costs(config)["work"]
    noise = f"{plan.noise_multiplier:.3g}" if plan.noise_multiplier else "–"
    memory = "–" if work["peak_memory_gib"] is None else f"{work['peak_memory_gib']:.1f}"
    return [noise, _duration(work["seconds"]), memory], hints(plan, config)


def _others(overrides: Iterable[str]) -> list[str]:
    """What is said of neither the method nor its budget."""
    return [one for one in overrides if _key(one) not in ("method", "privacy.epsilon", "plan_only")]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return "seconds" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _most(counts: Counter[Any]) -> str:
    named = [f"{count:,} {kind}" for kind, count in counts.most_common(MOST)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(MOST))
    return ", ".join([*named, *([f"{rest:,} of other kinds"] if rest else [])]) or "none"


def _first(names: list[str]) -> str:
    return "; ".join(names[:BAD]) + (" …" if len(names) > BAD else "")


def _tell(line: str) -> None:
    console.print(Text(line), soft_wrap=True)


if __name__ == "__main__":
    run_script(main, __doc__)
