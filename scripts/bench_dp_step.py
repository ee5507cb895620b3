"""What DP gradients cost, as ratios to ordinary training on the same images in the same process.

    python -m scripts.bench_dp_step                          # the 4.2M-parameter MNIST network; about 5 minutes on 2 cores
    python -m scripts.bench_dp_step --model digits_unet --views 64 --repetitions 6

For each (examples B, views K): forward and backward of the non-private step, then the gradient phase of engine `views`,
engine `batched`, Opacus' hooks and vmap(grad), alternating on the same images, timesteps and noise; the first repetition
is dropped; median (range) of the paired ratios. `whole step`: the faster engine with clipping, noise and Adam against the
non-private step with Adam. Memory: the peak above what weights hold before the step. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from opacus import GradSampleModule
from torch.func import functional_call, grad, vmap

from conf.schema import register
from dp_finetune.engines import ENGINES, EngineName
from dp_finetune.objective import Views, view_losses
from dp_finetune.optimizer import PrivateOptimizer
from models.unet import UNet
from privacy.noise import NoiseSource

Step = Callable[[], None]
AUGMULTS = (1, 4, 16, 64)


def main() -> None:
    warnings.filterwarnings("ignore")  # of the rivals' slow paths: that is what is measured
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dpd_mnist", help="a model of conf/model")
    parser.add_argument("--views", type=int, default=32, help="B·K, the same for every K")
    parser.add_argument("--step-examples", type=int, default=16, help="examples of the whole step")
    parser.add_argument("--repetitions", type=int, default=4, help="the first is dropped")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    config = model_settings(args.model)

    print(f"{args.model}: {config.facts()['parameters']:,} parameters; {hardware(device)}; torch {torch.__version__}, float32\n")
    columns = ["non-private", *(name.value for name in ENGINES), "Opacus hooks", "vmap(grad)"]
    print(f"| B, K | images/s | {' | '.join(columns[1:])} | peak MiB: {', '.join(columns)} |")
    print("| --- | ---: |" + " --- |" * len(columns))
    for augmult in AUGMULTS:
        examples = max(1, args.views // augmult)
        print(gradient_row(config, examples, augmult, args.repetitions, device), flush=True)
    print(f"\n| B, K | images/s | whole step ({', '.join(name.value for name in ENGINES)}) |")
    print("| --- | ---: | --- |")
    for augmult in AUGMULTS[1:]:
        print(whole_step_row(config, args.step_examples, augmult, max(3, args.repetitions // 2), device), flush=True)


def model_settings(name: str) -> UNet:
    from omegaconf import OmegaConf

    register()
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        settings = OmegaConf.to_object(compose("config", [f"model={name}", "model.pretrained=null"]).model)
    assert isinstance(settings, UNet)
    return settings


def gradient_row(config: UNet, examples: int, augmult: int, repetitions: int, device: torch.device) -> str:
    unet, views = setting(config, examples, augmult, device)
    steps = {
        "non-private": non_private(unet, views),
        **{name.value: by_engine(name, unet, views) for name in ENGINES},
        "Opacus hooks": by_hooks(unet, views),
        "vmap(grad)": by_vmap(unet, views),
    }
    seconds = alternate(steps, repetitions, device)
    memory = [f"{peak_mebibytes(step, device):.0f}" for step in steps.values()]
    floor = seconds.pop("non-private")
    ratios = [ratio(times, floor) for times in seconds.values()]
    speed = examples * augmult / statistics.median(floor)
    return f"| {examples}, {augmult} | {speed:.0f} | {' | '.join(ratios)} | {', '.join(memory)} |"


def whole_step_row(config: UNet, examples: int, augmult: int, repetitions: int, device: torch.device) -> str:
    unet, views = setting(config, examples, augmult, device)
    steps = {"non-private": with_adam(unet, views)} | {name.value: whole_private_step(name, unet, views) for name in ENGINES}
    seconds = alternate(steps, repetitions, device)
    floor = seconds.pop("non-private")
    speed = examples * augmult / statistics.median(floor)
    return f"| {examples}, {augmult} | {speed:.0f} | {', '.join(ratio(times, floor) for times in seconds.values())} |"


def setting(config: UNet, examples: int, augmult: int, device: torch.device) -> tuple[Any, Views]:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet: Any = UNet2DModel(**config.architecture())
    unet.to(device)
    rows = examples * augmult
    shape = (rows, config.image_channels, config.image_size, config.image_size)
    labels = torch.randint(0, config.labels, (examples,)).repeat_interleave(augmult)
    x, noise, t = torch.randn(shape), torch.randn(shape), torch.randint(0, config.num_steps, (rows,))
    return unet, Views(x.to(device), t.to(device), labels.to(device), noise.to(device), examples)


def non_private(unet: Any, views: Views, chunk: int = 64) -> Step:
    """Ordinary training on the same images, in passes of its own best size among those that fit a laptop."""

    def step() -> None:
        for start in range(0, len(views.t), chunk):
            (view_losses(unet, views.part(slice(start, start + chunk))).sum() / len(views.t)).backward()
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
        for p in unet.parameters():
            p.grad_sample = p.grad_sample.unflatten(0, (views.examples, views.augmult)).mean(1)
        hooked.to_standard_module()
        forget(list(unet.parameters()))

    return step


def by_vmap(unet: Any, views: Views) -> Step:
    parameters = {name: p.detach() for name, p in unet.named_parameters()}

    def loss(weights: Any, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        labels = y if unet.config.num_class_embeds else None
        return (functional_call(unet, weights, (x, t, labels)).sample - noise).square().mean()

    batch = [tensor.unflatten(0, (views.examples, views.augmult)) for tensor in (views.x_t, views.t, views.labels, views.noise)]
    return lambda: vmap(grad(loss), (None, 0, 0, 0, 0))(parameters, *batch) and None


def with_adam(unet: Any, views: Views) -> Step:
    optimizer = torch.optim.Adam(unet.parameters(), lr=0.0)

    def step() -> None:
        for start in range(0, len(views.t), 64):
            (view_losses(unet, views.part(slice(start, start + 64))).sum() / len(views.t)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def whole_private_step(name: EngineName, unet: Any, views: Views) -> Step:
    engine = ENGINES[name](unet, max(64, views.augmult), views.augmult)
    adam, noise = torch.optim.Adam(engine.parameters, lr=0.0), NoiseSource(bytes(32))
    optimizer = PrivateOptimizer(adam, noise_multiplier=1.0, max_grad_norm=1e-3, expected_batch_size=views.examples)

    def step() -> None:
        for part in passes(views, engine.examples_per_pass):
            engine(part)
            optimizer.signal_skip_step(True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for p in optimizer.params:
            p.grad_sample = p.new_zeros(0, *p.shape)
        optimizer.noise = noise.stream("bench")
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


def alternate(steps: dict[str, Step], repetitions: int, device: torch.device) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition:
                seconds[name].append(time.perf_counter() - started)
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


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
