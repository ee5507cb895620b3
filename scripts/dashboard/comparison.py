"""Runs that repeat one setting with other seeds, as one line: what tells settings apart, their means and spreads, the best ones.

Two numbers are compared only where they are of the same data, judge and budget. Settings that an earlier version did not have yet
count as other ones: what is not known to be the same is not averaged.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any

from errors import format_value
from tracking.results import counted, mean_and_spread
from tracking.settings import differing, telling

Row = dict[str, Any]  # of `folders.read`
JUDGED = ("dataset.", "eval.")  # settings that decide what a number is of; the others are the method's
ALWAYS = "method.adapter"  # named even where only one is there
MEASURES = {"accuracy": (1, 3, "classifier"), "distance": (-1, 1, "space")}  # sign of better, digits that are shown, the judge


def described(rows: Iterable[Row]) -> list[Row]:
    """The rows in order of data, method, ε and seed. New are `data`, the dataset and the judge, and `variant`, of the method,
    each with the few settings that tell apart all that there are; `others` has the rest of what differs."""
    rows = [{**row, "data": row["dataset"], "variant": "", "others": ""} for row in rows]
    for ones in _parts(rows, lambda row: row["dataset"]):
        keys = telling([_judged(row) for row in ones])
        for row in ones:
            row["data"] = ", ".join([row["dataset"], *_words(_judged(row), keys)])
    for ones in _parts(rows, lambda row: (row["data"], row["method"])):
        at_equal_epsilon = _parts([row for row in ones if row["epsilon"] is not None], epsilon)
        keys = list(dict.fromkeys(key for some in at_equal_epsilon for key in telling([_own(row) for row in some])))
        keys = [ALWAYS] * any(ALWAYS in row["settings"] for row in ones) + [key for key in keys if key != ALWAYS]
        others = [key for key in differing([_own(row) for row in ones]) if key not in (*keys, "privacy.epsilon")]
        for row in ones:
            row["variant"], row["others"] = (", ".join(_words(_own(row), names)) for names in (keys, others))
    return sorted(rows, key=_order)


def compared(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each setting at each ε, of rows that are `described`: finished, and private or without any protection."""
    lines = []
    counts = [
        number
        for number, row in enumerate(rows)
        if row["status"] == "finished" and row["epsilon"] is not None and (row["private"] or epsilon(row) == math.inf)
    ]
    for numbers in _parts(counts, lambda number: (epsilon(rows[number]), json.dumps(rows[number]["settings"], sort_keys=True))):
        runs = [rows[number] for number in numbers]
        same = ("data", "dataset", "method", "variant", "others", "epsilon", "delta", "unit")
        line = {"runs": numbers, "seeds": counted([run["seed"] for run in runs]), **{key: runs[0][key] for key in same}}
        line |= {of: next((_judge(run, of) for run in runs if run[of]), "") for _, _, of in MEASURES.values()}
        lines.append({**line, **{measure: _measured(runs, measure) for measure in MEASURES}})
    for measure, (sign, digits, of) in MEASURES.items():
        known = [line for line in lines if line[measure]]
        for rivals in _parts(known, partial(_contest, of)):
            shown = [round(sign * line[measure]["mean"], digits) for line in rivals]
            for line, value in zip(rivals, shown, strict=True):
                line[measure]["best"] = len(rivals) > 1 and value == max(shown)
    return sorted(lines, key=lambda line: (line["data"], epsilon(line), line["method"], line["variant"]))


def _contest(of: str, line: dict[str, Any]) -> tuple[Any, ...]:
    """Data, budget and judge."""
    return line["data"], line["unit"], epsilon(line), line["delta"], line[of]


def epsilon(row: Row) -> float:
    """To three digits: of two targets that differ by less, the same was spent."""
    return float(f"{float(row['epsilon']):.3g}")


def _measured(runs: Sequence[Row], measure: str) -> dict[str, Any] | None:
    values = [float(run[measure]) for run in runs if run[measure] is not None and math.isfinite(float(run[measure]))]
    if not values:
        return None
    mean, spread = mean_and_spread(values)
    return {"mean": mean, "spread": spread, "runs": len(values), "best": False}


def _judge(row: Row, of: str) -> str:
    """The classifier, or the space of the distance with the features that make it."""
    features = row["settings"].get("eval.features") or row["settings"].get("model.features")
    return f"{row[of]} ({features})" if features and "public_features" in row[of] else str(row[of])


def _judged(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row["settings"].items() if key.startswith(JUDGED)}


def _own(row: Row) -> dict[str, Any]:
    """A part that another setting has not at all, as a warm-up, is told by its name alone."""
    own = {key: value for key, value in row["settings"].items() if not key.startswith(JUDGED)}
    return {key.rpartition(".")[0]: "on" for key in own if key.count(".") > 1} | own


def _words(settings: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """Nothing of a key that is null."""
    return [f"{key.removeprefix('method.')}={format_value(settings[key])}" for key in keys if key in settings]


def _order(row: Row) -> tuple[Any, ...]:
    """What is not known comes last."""
    of_run = (math.inf if row[key] is None else float(row[key]) for key in ("epsilon", "seed"))
    return row["dataset"] == "", row["data"], row["method"], row["variant"], *of_run, row["folder"]


def _parts(ones: Iterable[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    found: dict[Hashable, list[Any]] = defaultdict(list)
    for one in ones:
        found[key(one)].append(one)
    return list(found.values())
