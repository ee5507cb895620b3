"""What Private Evolution costs beside its network calls: the vote step, the parts of a round, and sampling.

    python -m scripts.bench_pe                                                   # CIFAR-10's shape; about 15 minutes on 2 cores
    python -m scripts.bench_pe --private 10000 --synthetic 10000 --votes-only    # another shape
    python -m scripts.bench_pe --model mnist_unet --images 256                   # another public model
    python -m scripts.bench_pe --model mnist_unet --beside mnist_patches         # sampling alone, of two public models
    python -m scripts.bench_pe --sampling-only --precision bfloat16              # beside a plain loop in float32

Votes: every private vector finds the nearest of all synthetic ones, by torch in blocks (`method.neighbours=torch`), on a card too
where there is one, by faiss, and by a plain blocked loop in numpy; seconds, peak memory beyond the vectors, and private images
whose nearest is not the loop's (ties in rounding). A round: random images,
variations, embedding, votes and the rest, as one run spends them. Sampling:
images a second of this project beside a plain loop over diffusers' own DDIM scheduler, alternating; or of two models, with random
weights. Prints Markdown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from conf.compose import compose_config, to_typed
from conf.help import run_script
from models.neighbours import CPU, NeighbourBackend, nearest
from pe import evolution
from pipeline.config import check_device, torch_device
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.noise import NoiseSource
from tracking.environment import environment, format_environment

Nearest = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main(arguments: list[str]) -> None:
    args = parser().parse_args(arguments)
    check_device(args.device)
    print(f"{format_environment(environment(torch_device(args.device)))}\n")
    if args.beside:
        sampling_beside(args.model, args.beside, args.repetitions, device=args.device)
        return
    if args.only != "sampling":
        votes(args.private, args.synthetic, args.dim, torch_device(args.device))
    if args.only is None:
        parts_of_a_round(args.model, args.images, args.device)
    if args.only != "votes":
        sampling(args.model, args.repetitions, precision=args.precision, device=args.device)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--private", type=int, default=50_000)
    parser.add_argument("--synthetic", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048, help="of the embedding: Inception's")
    only = parser.add_mutually_exclusive_group()
    for part in ("votes", "sampling"):
        only.add_argument(f"--{part}-only", action="store_const", dest="only", const=part)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="of our sampling")
    parser.add_argument("--model", default="digits_unet", help="a model of conf/model, for the round and for sampling")
    parser.add_argument("--beside", help="another model of conf/model: images a second of both, and nothing else")
    parser.add_argument("--images", type=int, default=1000, help="population of the round")
    parser.add_argument("--repetitions", type=int, default=4, help="of sampling; the first is dropped")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def votes(private: int, synthetic: int, dim: int, device: torch.device = CPU) -> None:
    rng = np.random.default_rng(0)
    queries, points = (rng.standard_normal((count, dim), np.float32) for count in (private, synthetic))
    by: dict[str, Nearest] = {
        "plain loop (numpy)": plain_loop,
        "torch": lambda q, z: nearest(q, z, NeighbourBackend.torch),
        "faiss": lambda q, z: nearest(q, z, NeighbourBackend.faiss),
    }
    print(f"{private:,} private and {synthetic:,} synthetic vectors of {dim:,} numbers\n")
    print("| votes | seconds | peak memory, MiB | other winners |\n| --- | ---: | ---: | ---: |")
    expected = None
    for name, function in by.items():
        found, seconds, mebibytes = in_child(function, queries, points)
        expected = found if expected is None else expected
        print(f"| {name} | {seconds:.1f} | {mebibytes:.0f} | {int((found != expected).sum())} |", flush=True)
    if device.type == "cuda":  # here, as a fork has no card
        nearest(queries[:2], points[:1000], device=device)
        torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        found = nearest(queries, points, device=device)
        seconds, mebibytes = time.perf_counter() - started, torch.cuda.max_memory_allocated(device) / 2**20
        print(f"| torch, on the card | {seconds:.1f} | {mebibytes:.0f} | {int((found != expected).sum())} |", flush=True)
    print()


def plain_loop(queries: np.ndarray, points: np.ndarray, rows: int = 256) -> np.ndarray:
    norms = np.square(points).sum(1)
    parts = [queries[start : start + rows] for start in range(0, len(queries), rows)]
    return np.concatenate([(norms - 2 * part @ points.T).argmin(1) for part in parts])


def in_child(function: Nearest, queries: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Result, seconds, and MiB that the peak is above what a fork holds at its start."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work(out: Connection) -> None:
        function(queries[:2], points[:1000])  # libraries are loaded, threads started
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        started = time.perf_counter()
        found = function(queries, points)
        seconds = time.perf_counter() - started
        out.send((found, seconds, (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20))

    process = context.Process(target=work, args=(theirs,))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


class Clock:
    """Adds up the seconds of calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return call


def parts_of_a_round(model_name: str, images: int, device: str = "auto") -> None:
    """One round of the digits' own settings, every call of the network and of the vote step timed where it happens."""
    noise = ["privacy.epsilon=null", "privacy.noise_multiplier=2", f"device={device}"]
    settings = [f"method.num_samples={images}", "method.iterations=1", "method.variation_degrees=[10]", "method.lookahead=4"]
    config = to_typed(
        compose_config([*noise, *settings, "tuned=none", f"model={model_name}", "method.embedding=public_features"])
    )
    plan = Plan.of(config)
    model, clock = config.model.build(config.dataset, config.torch_device, 0), Clock()
    generator: Any = model.api
    generator.random = clock.timed("random", generator.random)
    generator.variation = clock.timed("variation", generator.variation)
    embedding: Any = model.embeddings[config.method.embedding]  # type: ignore[attr-defined]
    embedding.embed = clock.timed("embedding", embedding.embed)
    evolution.count_votes = clock.timed("votes", evolution.count_votes)
    with tempfile.TemporaryDirectory() as folder:
        session = Session.open(config.dataset, config.privacy, plan, NoiseSource(bytes(32)), Path(folder))
        started = time.perf_counter()
        config.method.run(session.private, model, session.run)
        total = time.perf_counter() - started
    network = sum(clock.seconds[name] for name in ("random", "variation", "embedding"))
    print(f"One round of {images:,} images by {model_name}, degree 10, lookahead 4\n")
    print("| part | seconds | share |\n| --- | ---: | ---: |")
    for name, seconds in [*clock.seconds.items(), ("all the rest", total - network - clock.seconds["votes"])]:
        print(f"| {name} | {seconds:.2f} | {seconds / total:.1%} |")
    print(f"\nOutside network calls: {1 - network / total:.1%} (goal: 5 % or less)\n")


def sampling(model_name: str, repetitions: int, images: int = 64, precision: str = "float32", device: str = "auto") -> None:
    """Ratios of images a second, ours in `precision` over the plain loop's in float32."""
    settings = [f"model={model_name}", f"model.precision={precision}", "method=public_only", f"device={device}"]
    config = to_typed(compose_config(settings))
    generator = config.model.build(config.dataset, config.torch_device, 0).denoiser
    steps, labels = config.model.calls(), np.arange(images) % generator.num_labels
    betas = 1 - generator.alpha_bar / np.concatenate([[1.0], generator.alpha_bar[:-1]])
    scheduler: Any = DDIMScheduler(num_train_timesteps=len(betas), trained_betas=betas.tolist(), clip_sample=True)
    scheduler.set_timesteps(steps)

    @torch.inference_mode()
    def plain() -> None:
        x, _, _ = generator.dummy_inputs(images)
        x, y = torch.randn_like(x), torch.from_numpy(labels).to(generator.device)
        for t in scheduler.timesteps:
            x = scheduler.step(generator.predict_noise(x, t, y), t, x).prev_sample
        x.cpu()  # the clock stops when the images are there

    ours, ratios = [], []
    for _ in range(repetitions):
        started = time.perf_counter()
        generator.random(labels, stream="bench")
        middle = time.perf_counter()
        plain()
        ended = time.perf_counter()
        ours.append(images / (middle - started))
        ratios.append((ended - middle) / (middle - started))
    median, spread = statistics.median(ratios[1:]), (min(ratios[1:]), max(ratios[1:]))
    rate, name = statistics.median(ours[1:]), f"`{model_name}` in {precision}"
    print(f"Sampling {images} images by {name} in {steps} steps: {rate:.1f} images/s, {median:.2f} times")
    print(f"({spread[0]:.2f}–{spread[1]:.2f}) as many as a plain loop of diffusers in float32")


def sampling_beside(model_name: str, other_name: str, repetitions: int, images: int = 64, device: str = "auto") -> None:
    """Two models with random weights, alternating: images a second, and how many times those of the first."""
    rates: dict[str, list[float]] = {model_name: [], other_name: []}
    generators, facts = {}, {}
    for name in rates:
        settings = ["model.pretrained=null", "model.features=null", "method=public_only", "eval=none", f"device={device}"]
        config = to_typed(compose_config([f"model={name}", *settings]))
        generators[name] = config.model.build(config.dataset, config.torch_device, 0).denoiser
        facts[name] = {**config.model.facts(), "calls": config.model.calls()}
    for _ in range(repetitions):
        for name, generator in generators.items():
            started = time.perf_counter()
            generator.random(np.arange(images) % generator.num_labels, stream="bench")
            rates[name].append(images / (time.perf_counter() - started))
    print("| model | parameters | GFLOPs of a pass | passes | images/s | times |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for name, of in rates.items():
        ratios = [mine / first for mine, first in zip(of[1:], rates[model_name][1:], strict=True)]
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        fact, rate = facts[name], statistics.median(of[1:])
        print(
            f"| `{name}` | {fact['parameters']:,} | {(fact['flops'] or 0) / 1e9:.3f} | {fact['calls']} | {rate:.1f} | {times} |"
        )


if __name__ == "__main__":
    run_script(main)
