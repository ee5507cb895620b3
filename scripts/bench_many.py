"""What many images of one's own cost: main memory, the time to the first spend, a round of PE and ten steps of DP-SGD.

    python -m scripts.bench_many                                    # 1,000,000 images of 32×32 in a zip; half an hour on 2 cores
    python -m scripts.bench_many --images 100000 --side 128         # read as 64×64: moments take no larger ones

Makes the zip in a folder that is removed at the end: ten class folders of JPEG, a thousand of them different. Runs `python run.py
dataset=folder` on it as a user would, with nothing judged, and watches it: memory of the program's own, pages of files that it
has mapped (which the system takes back where others need them), and the ledger. Prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from conf.compose import compose
from conf.help import run_script
from models.public.settings import Model
from tracking.environment import environment, format_environment

CLASSES, DIFFERENT = 10, 1000
TEST_FRACTION = 0.01


@dataclass
class Watched:
    own: float = 0.0  # GiB, at most
    mapped: float = 0.0
    first_spend: float | None = None  # seconds
    seconds: float = 0.0

    def look(self, pid: int, since: float, ledger: Path) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        held = {name: int(kib) / 2**20 for name, kib in re.findall(r"Rss(Anon|File|Shmem):\s+(\d+) kB", status)}
        self.own = max(self.own, held.get("Anon", 0.0))
        self.mapped = max(self.mapped, held.get("File", 0.0) + held.get("Shmem", 0.0))
        if self.first_spend is None and ledger.exists() and ledger.stat().st_size:
            self.first_spend = time.perf_counter() - since


def main(arguments: list[str]) -> None:
    args = parser().parse_args(arguments)
    print(f"{format_environment(environment())}\n")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        place = make_zip(Path(folder, "images.zip"), args.images, args.side)
        base = [
            *("dataset=folder", f"dataset.path={place}", f"dataset.image_size={min(args.side, 64)}"),
            *(f"dataset.test_fraction={TEST_FRACTION}", "eval=none", "device=cpu"),
        ]
        print(f"{args.images:,} images of {args.side}×{args.side}, a zip of {place.stat().st_size / 2**20:.0f} MiB\n")
        print("| | first spend after, s | all, s | memory of its own, GiB | pages of files, GiB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        weights = untrained(base, Path(folder, "model"))
        steps = [
            "method.steps=10",
            f"method.batch_size={args.batch}",
            "method.warm_up.epsilon=null",
            "dataset.class_counts=uniform",
        ]
        for name, more in {
            "`dp_moments`": ["method=dp_moments"],
            "`pe`: one round of votes": ["method=pe", *weights, "method.iterations=1", "method.variation_degrees=[2]"],
            f"`dp_diffusion`: ten steps of {args.batch:,}": ["method=dp_diffusion", *steps, "method.num_samples=100"],
        }.items():
            if args.only not in name:
                continue
            found = watched([*base, *more], Path(folder, "run"))
            print(
                f"| {name} | {found.first_spend:.0f} | {found.seconds:.0f} | {found.own:.1f} | {found.mapped:.1f} |", flush=True
            )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--batch", type=int, default=1024, help="of DP-SGD")
    return parser


def make_zip(path: Path, images: int, side: int) -> Path:
    rng, kinds = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        kinds.append(buffer.getvalue())
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(images):
            archive.writestr(f"{number % CLASSES}/{number:07d}.jpg", kinds[number % DIFFERENT])
    return path


def untrained(base: list[str], folder: Path) -> list[str]:
    """Settings of a public model with random weights, which costs a round as much as a trained one."""
    config = compose([*base, "method=dp_diffusion"])
    model: Model = config.model
    denoiser = model.build(config.dataset, config.torch_device, seed=0).denoiser
    denoiser.save(folder)
    patch = getattr(model, "patch", 1)
    return [
        *("model=diffusers", f"model.pretrained={folder}", f"model.labels={model.labels}", f"model.patch={patch}"),
        "model.null_label=false",
        *("model.respacing='5'", "method.embedding=pixels", "dataset.class_counts=uniform"),
    ]


def watched(overrides: list[str], folder: Path) -> Watched:
    started, found = time.perf_counter(), Watched()
    command = [sys.executable, "run.py", *overrides, f"hydra.run.dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        found.look(process.pid, started, folder / "internal" / "ledger.jsonl")
        time.sleep(0.2)
    found.seconds = time.perf_counter() - started
    if process.returncode:
        assert process.stderr
        raise SystemExit(process.stderr.read())
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    return found


if __name__ == "__main__":
    run_script(main)
