"""Measure the floor (public_only) and the ceiling (real_data) that every report shows beside a run.

python -m scripts.reference [dataset=digits]      # about 17 minutes on 2 CPU cores; writes eval/references/digits.json
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

import torch

from conf import compose
from disk import write_json
from pipeline import run
from pipeline.report import REFERENCES, evaluator_settings

SEEDS = 3


def main() -> None:
    # Setup
    overrides = sys.argv[1:]
    config = compose(overrides)
    result = {
        "command": "make reference",
        "hardware": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "model": config.model.name,
        "evaluators": evaluator_settings(config),
    }

    # Run
    with tempfile.TemporaryDirectory() as folder:
        for method in ("public_only", "real_data"):
            one = run(compose([f"method={method}", f"eval.downstream.seeds={SEEDS}", *overrides]), Path(folder, method))
            assert one is not None
            result[method] = one.metrics

    # Report
    REFERENCES.mkdir(exist_ok=True)
    write_json(REFERENCES / f"{config.dataset.name}.json", result)
    print(f"wrote {REFERENCES / config.dataset.name}.json")


if __name__ == "__main__":
    main()
