"""Published points beside the runs' own, from a sheet: a JSON or YAML list of

- name: PE, Lin et al. 2024      # the legend
  x: 10                          # ε
  y: 89.1                        # accuracy in %, or a distance
  source: https://arxiv.org/…    # where the number stands
  panel: accuracy                # or distance; may be left out
  dataset: cifar10               # with this dataset alone; may be left out
  of: wrn40_4                    # with this classifier, or in this space (fid), alone; may be left out
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from errors import require, unusable

NEEDED, OPTIONAL = ("name", "x", "y", "source"), {"panel": "accuracy", "dataset": "", "of": ""}


def load(path: Path, key: str = "published") -> list[dict[str, Any]]:
    try:
        points = yaml.safe_load(path.read_text())  # JSON is YAML
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise unusable(key, path, f"it cannot be read ({type(error).__name__})") from None
    require(isinstance(points, list), key, path, "a list of {name, x, y, source}")
    found = []
    for number, point in enumerate(points, start=1):
        try:
            found.append(_point(point))
        except ValueError as error:
            raise unusable(key, path, f"point {number} {error}") from None
    return found


def _point(point: Any) -> dict[str, Any]:
    """ValueError that says what is wrong with it."""
    if not isinstance(point, dict) or not set(NEEDED) <= set(point) <= {*NEEDED, *OPTIONAL}:
        raise ValueError(f"needs {', '.join(NEEDED)}, and may have {', '.join(OPTIONAL)}")
    for axis in ("x", "y"):
        if isinstance(point[axis], bool) or not isinstance(point[axis], int | float) or not math.isfinite(point[axis]):
            raise ValueError(f"has {axis}={point[axis]}, which is no finite number")
    if point["x"] <= 0:
        raise ValueError(f"has x={point['x']}, which is not above 0")
    found = {**OPTIONAL, **point}
    if found["panel"] not in ("accuracy", "distance"):
        raise ValueError(f"has panel={found['panel']}, which is neither accuracy nor distance")
    return {name: value if name in ("x", "y") else str(value) for name, value in found.items()}
