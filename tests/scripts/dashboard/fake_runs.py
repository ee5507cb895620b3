"""Run directories as `run.py` leaves them, made in milliseconds; and the page of them."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from privacy.mechanisms import Unit
from scripts.dashboard.__main__ import main

CONFIG = (Path(__file__).parents[2] / "golden" / "run_config.yaml").read_text()  # of `run.py +experiment=smoke`
NAUGHTY = '<img src=x onerror="window.harmed=1"></script><script>window.harmed=1</script>'  # as a name
METHODS = {"pe": "pe.votes", "dp_diffusion": "dp_sgd", "dp_loda": "dp_sgd", "public_only": "", "real_data": "real_data"}


def fake_run(
    folder: Path,
    method: str = "pe",
    dataset: str = "digits",
    epsilon: float = 10.0,
    seed: int = 0,
    accuracy: float = 0.8,
    distance: float = 20.0,
    private: bool = True,
    finished: bool = True,
    colour: int = 0,
    names: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Path:
    """A run; where not `private` all it made is under internal/, as the private images are. `names` go into the certificate,
    `settings` (`{"method.adapter": "lora"}`) into its configuration."""
    target = folder / ("release" if private else "internal/not_for_release")
    target.mkdir(parents=True)
    (folder / "internal").mkdir(exist_ok=True)
    # json.dumps: any name is one YAML scalar
    config = CONFIG.replace("  name: digits\n", f"  name: {json.dumps(dataset)}\n", 1)
    config = config.replace("  name: pe\n", f"  name: {json.dumps(method)}\n", 1).replace("\nseed: 0\n", f"\nseed: {seed}\n")
    if settings:
        tree = yaml.safe_load(config)
        for key, value in settings.items():
            *above, last = key.split(".")
            functools.reduce(lambda part, name: part[name], above, tree)[last] = value
        config = yaml.safe_dump(tree)
    (folder / "config.yaml").write_text(config)
    votes = [{"pe/noisy_votes": 1400.0 - t, "step": t, "seconds": 1.0 * t, "internal": False} for t in range(1, 9)]
    held = [{"pe/secret_curve": 1.0 * t, "step": t, "seconds": 1.0 * t, "internal": True} for t in range(1, 3)]
    measured = {"wrn40_4/accuracy": accuracy, "step": None, "seconds": 9.0, "internal": True}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*votes, *held, measured]))
    spent = {"purpose": METHODS.get(method, "x"), "count": 8, "mechanism": "discrete_gaussian", "noise_multiplier": 0.62}
    certificate = {
        "private": private,
        **({} if private else {"reason": "the private images were used without noise"}),
        "epsilon": epsilon if math.isfinite(epsilon) else "inf",
        "delta": 0.00034,
        "neighbouring": Unit.image.neighbouring,
        "accountant": "pld",
        "mechanisms": [spent],
        "public_by_assumption": ["number of private images: 1437", "class names: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"],
        "epsilon_target": 10.0,
        **{"method": method, "dataset": dataset, "public_model": "digits_unet"},
        "num_samples": 3000,
        "trainable_parameters": 0,
        **(names or {}),
    }
    (target / "privacy.json").write_text(json.dumps(certificate, indent=2))
    (target / "grid.png").write_bytes(grid(colour))
    (target / "samples.npz").write_bytes(b"")
    if finished:
        metrics = {
            "privacy/epsilon": certificate["epsilon"],
            "privacy/delta": 0.00034,
            "time/method_seconds": 200.0 + seed,
            "time/method_seconds/part=votes": 75.0,
            "memory/peak_gib": 1.25,
            "frechet/public_features_train": distance,
            "frechet/public_features_train_n": 1437.0,
            "frechet/public_features_train_floor": 5.57,
            "wrn40_4/accuracy": accuracy,
            "wrn40_4/accuracy_spread": 0.014,
            "wrn40_4/accuracy_seeds": 3.0,
            "time/evaluation_seconds": 60.0,
        }
        (folder / "internal" / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return folder


@functools.cache
def grid(colour: int) -> bytes:
    """A PNG as large as that of twenty columns of digits, as hard to compress; `colour` sets it apart."""
    import io

    noise = np.random.default_rng(colour).integers(0, 17, (45, 93), np.uint8) * 15
    out = io.BytesIO()
    Image.fromarray(noise).resize((744, 360), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def many(root: Path, count: int) -> None:
    """A study: methods × datasets × ε × seeds."""
    for i in range(count):
        method = ("pe", "dp_diffusion", "dp_loda", "public_only")[i % 4]
        epsilon = 0.0 if method == "public_only" else (1.0, 3.0, 10.0)[i // 4 % 3] - 1e-9
        accuracy = 0.5 + 0.1 * (i % 4) + 0.05 * math.log1p(epsilon) + 0.01 * (i // 24 % 3)
        dataset = ("digits", "mnist")[i // 12 % 2]
        fake_run(
            root / f"{dataset}-{method}" / f"{i:03}",
            method,
            dataset,
            epsilon,
            i // 24,
            accuracy,
            90 * (1 - accuracy),
            colour=i % 7,
        )


def made(*arguments: str) -> str:
    """The page of the runs under runs/."""
    main(list(arguments))
    return Path("runs/dashboard.html").read_text()
