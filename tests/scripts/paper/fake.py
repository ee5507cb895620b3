"""Finished runs that nothing ran."""

from __future__ import annotations

from pathlib import Path

from disk import write_json
from scripts.paper.runs import Measured
from store.run_dir import RunDir


def fake(folder: Path, config: dict, metrics: dict, epsilon: float | str = 1.0) -> Measured:
    (folder / "release").mkdir(parents=True)
    (folder / "internal" / "figures").mkdir(parents=True)
    write_json(folder / "config.yaml", {"dataset": {"name": "mnist"}, **config})
    write_json(folder / "internal" / "metrics.json", metrics)
    write_json(folder / "internal" / "computed_with.json", {"device": "CPU with AVX2"})
    write_json(folder / "internal" / "made_with.json", {"release": {"commit": "abc"}, "evaluation": {"commit": f"de{epsilon}"}})
    write_json(folder / "release" / "privacy.json", {"epsilon": epsilon, "delta": 1e-5, "num_samples": 100})
    return Measured(RunDir(folder))
