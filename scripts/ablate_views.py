"""The two claims of Ghalebikesabi et al. (2023) on the embedded digits: more views help, and so does the timestep bias.

    python -m scripts.ablate_views          # 6 runs, about 20 minutes on 2 CPU cores; finished runs are kept

Writes docs/ablation_views.json (what was measured) and docs/ablation_views.svg (accuracy and distance against K, with the
biased mixture of `conf/method/dp_diffusion.yaml` and with uniform timesteps). One run a point: differences below the spread
of the classifiers, which the figure shows, mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tracking.run_dir import write_json

AUGMULTS = (1, 2, 4)
MIXTURES = {"biased": [], "uniform": ["method.timestep_mixture=[{weight: 1.0, low: 0, high: 1000}]"]}
DOCS = Path("docs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablate_views"))
    parser.add_argument("overrides", nargs="*", help="for every run, such as method.steps=60")
    args = parser.parse_args()

    points = []
    for mixture, settings in MIXTURES.items():
        for augmult in AUGMULTS:
            folder = args.runs / f"{mixture}-{augmult}"
            metrics = folder / "internal" / "metrics.json"
            if not metrics.exists():
                command = [sys.executable, "run.py", "method=dp_diffusion", "eval=seeds", f"method.augmult={augmult}"]
                subprocess.run([*command, *settings, *args.overrides, f"hydra.run.dir={folder}"], check=True)
            points.append({"mixture": mixture, "augmult": augmult, **json.loads(metrics.read_text())})
    write_json(DOCS / "ablation_views.json", {"command": " ".join(["scripts.ablate_views", *args.overrides]), "points": points})
    draw(points, DOCS / "ablation_views.svg")


def draw(points: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for mixture, marker in zip(MIXTURES, "os", strict=True):
        mine = [point for point in points if point["mixture"] == mixture]
        views = [point["augmult"] for point in mine]
        accuracy, spread = ([100 * point[f"wrn40_4/accuracy{part}"] for point in mine] for part in ("", "_spread"))
        left.errorbar(views, accuracy, spread, marker=marker, capsize=3, label=f"{mixture} timesteps")
        right.plot(views, [point["frechet/public_features_train"] for point in mine], marker=marker)
    left.set_ylabel("WRN-40-4 accuracy, %")
    right.set_ylabel("Fréchet distance")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(AUGMULTS, [str(k) for k in AUGMULTS])
        axes.set_xlabel("views of an example, K")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
