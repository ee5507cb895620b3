"""Measure the floor (public_only) and the ceiling (real_data) that every report shows beside a run.

python -m scripts.reference [dataset=digits]      # about 17 minutes on 2 CPU cores; writes eval/references/digits.json
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from conf.schema import compose_config, to_typed
from disk import write_json
from report import REFERENCES, evaluator_settings

SEEDS = 3


def main() -> None:
    # Setup
    overrides = sys.argv[1:]
    config = to_typed(compose_config(overrides))
    result = {
        "command": "make reference",
        "hardware": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "evaluators": evaluator_settings(config),
    }

    # Run
    with tempfile.TemporaryDirectory() as folder:
        for method in ("public_only", "real_data"):
            run_dir = Path(folder, method)
            command = [sys.executable, "run.py", f"method={method}", f"eval.downstream.seeds={SEEDS}", f"hydra.run.dir={run_dir}"]
            subprocess.run([*command, *overrides], check=True)
            result[method] = json.loads((run_dir / "internal" / "metrics.json").read_text())

    # Report
    REFERENCES.mkdir(exist_ok=True)
    write_json(REFERENCES / f"{config.dataset.name}.json", result)
    print(f"wrote {REFERENCES / config.dataset.name}.json")


if __name__ == "__main__":
    main()
