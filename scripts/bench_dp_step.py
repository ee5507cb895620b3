"""What DP gradients cost, as ratios to ordinary training on the same images in the same process.

    python -m scripts.bench_dp_step                          # the 4.2M-parameter MNIST network; about 5 minutes on 2 cores
    python -m scripts.bench_dp_step --model digits_unet --views 64 --repetitions 6
    python -m scripts.bench_dp_step --engines-only --processor-time    # the two engines, where other programs run beside
    python -m scripts.bench_dp_step --adapter loda           # DP on adapters, beside DP on the whole network

For each (examples B, views K): forward and backward of the non-private step, then the gradient phase of engine `views`,
engine `batched`, Opacus' hooks and vmap(grad), alternating on the same images, timesteps and noise; the first repetition
is dropped; median (range) of the paired ratios. `whole step`: each engine with clipping, noise and Adam against the
non-private step with Adam. Memory: the peak above what weights hold before the step. Prints Markdown.

With an adapter, the non-private step is the adapter's own; the columns `full` train the whole network on the same images.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from opacus import GradSampleModule
from torch.func import functional_call, grad, vmap

from conf.compose import compose_config
from conf.help import run_script
from dp_finetune.adapters import Adapter, AdapterName
from dp_finetune.engines import ENGINES, EngineName
from dp_finetune.objective import Views, view_losses
from dp_finetune.optimizer import PrivateOptimizer
from models.ema import trainable
from models.public.unet import UNet
from pipeline.config import check_device, torch_device
from privacy.noise import NoiseSource
from tracking.environment import environment, format_environment

Step = Callable[[], None]
Clock = Callable[[], float]  # seconds
Network = Callable[[Adapter], Any]
AUGMULTS = (1, 4, 16, 64)
FULL = Adapter(kind=AdapterName.full)


def main(arguments: list[str]) -> None:
    warnings.filterwarnings("ignore")  # of the rivals' slow paths: that is what is measured
    args = parser().parse_args(arguments)
    check_device(args.device)
    clock = time.process_time if args.processor_time else time.perf_counter
    device, config, adapter = torch_device(args.device), model_settings(args.model), Adapter(kind=AdapterName(args.adapter))

    def network(what: Adapter) -> Any:
        return adapted(config, what, device)

    print(f"{args.model}: {count(network(FULL)):,} parameters, float32; {format_environment(environment(device))}")
    if adapter.kind is not AdapterName.full:
        print(f"{args.adapter} trains {count(network(adapter)):,} of them")
    if args.engines_only:
        print(f"\n| B, K | images/s | {' | '.join(name.value for name in ENGINES)} |")
        print("| --- | ---: |" + " --- |" * len(ENGINES))
        for augmult in args.augmults:
            views = some_views(config, max(1, args.views // augmult), augmult, device)
            print(compared(engine_steps(network(adapter), views), views, args.repetitions, device, clock), flush=True)
        return
    if not args.whole_step_only:
        columns = list(gradient_steps(network, adapter, some_views(config, 1, 1, device)))
        print(f"\n| B, K | images/s | {' | '.join(columns[1:])} | peak MiB: {', '.join(columns)} |")
        print("| --- | ---: |" + " --- |" * len(columns))
        for augmult in args.augmults:
            views = some_views(config, max(1, args.views // augmult), augmult, device)
            steps = gradient_steps(network, adapter, views)
            cells, peaks = (
                compared(steps, views, args.repetitions, device, clock),
                (peak_mebibytes(step, device) for step in steps.values()),
            )
            print(f"{cells} {', '.join(f'{peak:.0f}' for peak in peaks)} |", flush=True)
    columns = list(whole_steps(network, adapter, some_views(config, 1, 1, device)))
    print(f"\n| B, K | images/s | {' | '.join(f'whole step, {name}' for name in columns[1:])} |")
    print("| --- | ---: |" + " --- |" * (len(columns) - 1))
    for augmult in args.augmults if args.whole_step_only else args.augmults[1:]:
        views = some_views(config, args.step_examples, augmult, device)
        steps = whole_steps(network, adapter, views)
        print(compared(steps, views, max(3, args.repetitions // 2), device, clock), flush=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dpd_mnist", help="a model of conf/model")
    names = [name.value for name in AdapterName]
    parser.add_argument("--adapter", default="full", choices=names, help="what is trained, with conf/method/dp_loda.yaml's rank")
    parser.add_argument("--views", type=int, default=32, help="B·K, the same for every K")
    parser.add_argument("--step-examples", type=int, default=16, help="examples of the whole step")
    parser.add_argument("--augmults", type=int, nargs="+", default=AUGMULTS, help="K")
    parser.add_argument("--whole-step-only", action="store_true")
    parser.add_argument("--engines-only", action="store_true", help="no rivals, no memory and no whole step")
    parser.add_argument("--processor-time", action="store_true", help="not the clock's: where other programs run beside")
    parser.add_argument("--repetitions", type=int, default=4, help="the first is dropped")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def model_settings(name: str) -> UNet:
    from omegaconf import OmegaConf

    settings = OmegaConf.to_object(compose_config([f"model={name}", "model.pretrained=null"]).model)
    assert isinstance(settings, UNet)
    return settings


def gradient_steps(network: Network, adapter: Adapter, views: Views) -> dict[str, Step]:
    unet = network(adapter)
    steps = engine_steps(unet, views) | {"Opacus hooks": by_hooks(unet, views), "vmap(grad)": by_vmap(unet, views)}
    if adapter.kind is not AdapterName.full:
        whole = network(FULL)
        steps["full: non-private"] = non_private(whole, views)
        steps |= {f"full: {name.value}": by_engine(name, whole, views) for name in ENGINES}
    return steps


def engine_steps(unet: Any, views: Views) -> dict[str, Step]:
    return {"non-private": non_private(unet, views)} | {name.value: by_engine(name, unet, views) for name in ENGINES}


def whole_steps(network: Network, adapter: Adapter, views: Views) -> dict[str, Step]:
    unet = network(adapter)
    steps = {"non-private": non_private(unet, views, adam(unet))}
    steps |= {name.value: whole_private_step(name, unet, views) for name in ENGINES}
    if adapter.kind is not AdapterName.full:
        whole = network(FULL)
        steps["full: non-private"] = non_private(whole, views, adam(whole))
        steps |= {f"full: {name.value}": whole_private_step(name, whole, views) for name in ENGINES}
    return steps


def adapted(config: UNet, adapter: Adapter, device: torch.device) -> Any:
    torch.manual_seed(0)
    unet: Any = UNet2DModel(**config.architecture())
    adapter.apply(unet)
    return unet.to(device)


def some_views(config: UNet, examples: int, augmult: int, device: torch.device) -> Views:
    torch.manual_seed(0)
    rows = examples * augmult
    shape = (rows, config.image_channels, config.image_size, config.image_size)
    labels = torch.randint(0, config.labels, (examples,)).repeat_interleave(augmult)
    x, noise, t = torch.randn(shape), torch.randn(shape), torch.randint(0, config.num_steps, (rows,))
    return Views(x.to(device), t.to(device), labels.to(device), noise.to(device), examples, config.skeleton())


def count(unet: Any) -> int:
    return sum(p.numel() for p in trainable(unet).values())


def adam(unet: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(trainable(unet).values(), lr=0.0)


def non_private(unet: Any, views: Views, optimizer: torch.optim.Optimizer | None = None, chunk: int = 64) -> Step:
    """Ordinary training on the same images, in passes of its own best size among those that fit a laptop."""

    def step() -> None:
        for start in range(0, len(views.t), chunk):
            (view_losses(unet, views.part(slice(start, start + chunk))).sum() / len(views.t)).backward()
        if optimizer:
            optimizer.step()
        unet.zero_grad(set_to_none=True)

    return step


def by_engine(name: EngineName, unet: Any, views: Views) -> Step:
    engine = ENGINES[name](unet, max(64, views.augmult), views.augmult)

    def step() -> None:
        for part in passes(views, engine.examples_per_pass):
            engine(part)
            forget(engine.parameters)

    return step


def by_hooks(unet: Any, views: Views) -> Step:
    """Opacus' own: B·K rows, the mean over an example's views taken afterwards."""

    def step() -> None:
        hooked = GradSampleModule(unet, loss_reduction="sum", strict=False)
        view_losses(unet, views).sum().backward()
        for p in trainable(unet).values():
            p.grad_sample = p.grad_sample.unflatten(0, (views.examples, views.augmult)).mean(1)  # type: ignore[attr-defined]
        hooked.to_standard_module()
        forget(list(unet.parameters()))

    return step


def by_vmap(unet: Any, views: Views) -> Step:
    parameters = {name: p.detach() for name, p in trainable(unet).items()}

    def loss(weights: Any, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        def network(*inputs: Any) -> Any:
            return functional_call(unet, weights, inputs)

        return (views.denoiser.predict_noise(x, t, y, network) - noise).square().mean()

    batch = [tensor.unflatten(0, (views.examples, views.augmult)) for tensor in (views.x_t, views.t, views.labels, views.noise)]
    return lambda: vmap(grad(loss), (None, 0, 0, 0, 0))(parameters, *batch) and None


def whole_private_step(name: EngineName, unet: Any, views: Views) -> Step:
    engine = ENGINES[name](unet, max(64, views.augmult), views.augmult)
    noise, steps = NoiseSource(bytes(32)), itertools.count(1)
    optimizer = PrivateOptimizer(adam(unet), noise_multiplier=1.0, max_grad_norm=1e-3, expected_batch_size=views.examples)

    def step() -> None:
        for part in passes(views, engine.examples_per_pass):
            engine(part)
            optimizer.signal_skip_step(True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for p in optimizer.params:
            p.grad_sample = p.new_zeros(0, *p.shape)
        optimizer.noise = noise.stream(f"bench/step={next(steps)}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def passes(views: Views, examples_per_pass: int) -> list[Views]:
    parts = []
    for start in range(0, views.examples, examples_per_pass):
        stop = min(start + examples_per_pass, views.examples)
        part = views.part(slice(start * views.augmult, stop * views.augmult))
        part.examples = stop - start
        parts.append(part)
    return parts


def forget(parameters: list[Any]) -> None:
    for p in parameters:
        p.grad = p.grad_sample = None


def compared(steps: dict[str, Step], views: Views, repetitions: int, device: torch.device, clock: Clock) -> str:
    """A row of the table: ratios to the first of the steps."""
    seconds = alternate(steps, repetitions, device, clock)
    floor = seconds.pop("non-private")
    cells = [ratio(times, floor) for times in seconds.values()]
    return f"| {views.examples}, {views.augmult} | {len(views.t) / statistics.median(floor):.0f} | {' | '.join(cells)} |"


def alternate(steps: dict[str, Step], repetitions: int, device: torch.device, clock: Clock) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions):
        for name, step in list(steps.items())[:: 1 if repetition % 2 else -1]:  # which one is first alternates
            started = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition:
                seconds[name].append(clock() - started)
    return seconds


def ratio(times: list[float], floor: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(times, floor, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def peak_mebibytes(step: Step, device: torch.device) -> float:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    trim = getattr(__import__("ctypes").CDLL(None), "malloc_trim", lambda _: None)
    trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    step()
    return (resident("VmHWM") - before) / 2**10


def resident(field: str) -> int:
    """KiB"""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


if __name__ == "__main__":
    run_script(main)
