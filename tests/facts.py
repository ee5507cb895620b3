"""The numbers of `golden/golden_facts.json`: recomputed from the papers, each with its inputs and a tolerance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
FACTS: dict[str, Any] = {fact["id"]: fact for fact in json.loads((GOLDEN / "golden_facts.json").read_text())}


def number(value: float | str) -> float:
    """A number, or a product such as "2*sqrt(2)"."""
    factors = [factor.removeprefix("sqrt(") for factor in str(value).split("*")]
    return math.prod(math.sqrt(float(f[:-1])) if f.endswith(")") else float(f) for f in factors)


def gaussian_rows() -> list[tuple[str, float, int, float, float]]:
    """(id, noise multiplier, rounds, delta, epsilon) of every golden row about Gaussian rounds, one for each T."""
    rows = []
    for name, fact in FACTS.items():
        if name.startswith("pe.") and {"sigma", "T", "delta"} <= fact["inputs"].keys():
            inputs, values = fact["inputs"], fact["computed_value"]
            pairs = zip(inputs["T"], values, strict=True) if isinstance(values, list) else [(inputs["T"], values)]
            rows += [(f"{name}/T={t}", number(inputs["sigma"]), t, inputs["delta"], value) for t, value in pairs]
    return rows
