"""Any number of images, later, from a released model: post-processing, so no further privacy is spent.

    python -m scripts.sample model=runs/…/release/model num_samples=1000000
    python -m scripts.sample model=… num_samples=5000 out=more seed=1 respacing=50 guidance=1.0
    python -m scripts.sample model=… num_samples=5000 base=…      # adapters whose base is not embedded: its folder
    torchrun --nproc_per_node=8 -m scripts.sample model=… num_samples=1000000   # the same images, shared among processes

Writes shards of `shard` images under `out` (default: `more_samples` beside the model's release), each an npz like the
release's own; classes take turns, so every shard is balanced. A killed run goes on with the same command. docs/sweeps.md has the
commands for several machines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING, OmegaConf

from conf.help import run_script
from data.overlap import PUBLIC_DIGESTS
from data.samples import SampleFileError, SampleSet
from data.shards import shard_path
from disk import write_json
from dp_finetune import adapters
from errors import reject_unless, require, unusable
from models.diffusion.model import DiffusionModel
from models.diffusion.schedules import respaced_timesteps
from models.embedded import embedded_or
from pipeline.config import check_device, torch_device
from privacy.inherited import CERTIFICATE, Inherited, PublicInput
from store.seal import sealed
from tracking import ranks
from tracking.progress import progress

DIGESTS = "sha256 of the model"


@dataclass
class Sampling:
    model: str = MISSING  # release/model of a run
    num_samples: int = MISSING
    base: str | None = None  # of released adapters: the folder of the public model; default: the embedded one of that name
    out: str | None = None
    shard: int = 10_000
    seed: int = 0
    respacing: str | None = None  # default: that of the run
    guidance: float | None = None
    device: str = "auto"


def main(arguments: list[str]) -> None:
    settings = _settings(arguments)
    certificate = _certificate(settings)
    device = ranks.start(torch_device(settings.device))
    other = ranks.differing(lambda: _digests(Path(settings.model)))
    reject_unless(not other, "model", settings.model, f"the nodes do not have the same {', '.join(other)}")
    model = _model(settings, device)
    out = Path(settings.out) if settings.out else Path(settings.model).resolve().parents[1] / "more_samples"
    if ranks.rank() == 0:
        _prepare(out, settings, certificate)
    classes = np.arange(model.num_labels) if model.classes is None else np.array(model.classes)

    with progress("sampling", settings.num_samples) as advance:
        for number, start in enumerate(range(0, settings.num_samples, settings.shard)):
            size = min(settings.shard, settings.num_samples - start)
            path = shard_path(out, number)
            if ranks.broadcast(_complete(path, size)):
                advance(size)
                continue
            labels = np.arange(start, start + size, dtype=np.int64) % len(classes)
            images = model.random(classes[labels], stream=f"sample/{number}", advance=advance)
            if ranks.rank() == 0:
                SampleSet(images, labels, len(classes), classes[labels], {"model": "release/model"}).save(path)
    ranks.stop()
    if ranks.rank() == 0:
        if certificate is not None:
            own = {"num_samples": settings.num_samples, "files": sealed(out)}
            write_json(out / CERTIFICATE, {**certificate, **own})
        print(f"{settings.num_samples} images in {out}")


def _settings(arguments: list[str]) -> Sampling:
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Sampling), OmegaConf.from_cli(arguments)))
    for key in ("num_samples", "shard"):
        require(getattr(settings, key) >= 1, key, getattr(settings, key), "1 or more")
    check_device(settings.device)
    require(settings.seed >= 0, "seed", settings.seed, "0 or more")
    return settings


def _model(settings: Sampling, device: torch.device) -> DiffusionModel:
    folder = Path(settings.model)
    if (folder / "adapter.json").exists():
        model = adapters.load(folder, lambda name: embedded_or(settings.base or name), settings.seed, device)
    else:
        model = DiffusionModel.load(folder, settings.seed, device)
    model.respacing = settings.respacing or model.respacing
    model.guidance = model.guidance if settings.guidance is None else settings.guidance
    require(not model.guidance or model.null_label is not None, "guidance", model.guidance, "0, as the model has no null label")
    try:
        respaced_timesteps(len(model.alpha_bar), model.respacing)
    except ValueError as error:
        raise unusable("respacing", model.respacing, str(error)) from error
    return model


def _certificate(settings: Sampling) -> dict[str, Any] | None:
    """Of the samples: what the model has spent. InputError where its base has spent what its own certificate does not hold."""
    documents = PublicInput("model", Path(settings.model)).certificates()
    document = documents[0] if documents else None  # the nearest
    if settings.base is not None:
        known = {spend.purpose for one in documents for spend in (*one["mechanisms"], *one["elsewhere"])}
        base = Inherited.of([PublicInput("base", Path(settings.base))])
        allowed = f"a base whose spends the model's certificate holds ({base.told})"
        require(all(spend.purpose in known for spend in base.spends), "base", settings.base, allowed)
    return None if document is None else json.loads(document["file"].read_text())


def _prepare(out: Path, settings: Sampling, certificate: dict[str, Any] | None) -> None:
    """A fresh folder with the settings and the model's certificate, or one with the same settings and weights to go on in."""
    same = {key: value for key, value in vars(settings).items() if key not in ("out", "device", "num_samples")}
    same[DIGESTS] = _digests(Path(settings.model))
    stored = out / "sampling.json"
    if stored.exists():
        before = {DIGESTS: same[DIGESTS], **json.loads(stored.read_text())}  # those from before digests were kept go on
        differing = [key for key, value in same.items() if before.get(key) != value]
        reject_unless(not differing, "out", out, f"it holds samples with another {', '.join(differing)}; give another folder")
        last = shard_path(out, (settings.num_samples - 1) // settings.shard)
        more, size = any(path > last for path in out.glob("samples_*.npz")), settings.num_samples
        reject_unless(not more, "num_samples", size, f"{out} holds more samples already; give another folder as out")
    else:
        reject_unless(not out.exists() or not any(out.iterdir()), "out", out, "it is not empty; give another folder")
        out.mkdir(parents=True, exist_ok=True)
        if certificate is not None:
            write_json(out / CERTIFICATE, certificate)
        write_json(stored, same)


def _digests(model: Path) -> dict[str, str]:
    """Of all that is read from its folder; an adapter's base is held to the digest in it."""
    files = sorted(file for file in model.rglob("*") if file.is_file() and file.name not in (CERTIFICATE, PUBLIC_DIGESTS))
    return PublicInput("model", model, files).sha256()


def _complete(path: Path, size: int) -> bool:
    try:
        return path.exists() and len(SampleSet.load(path)) == size
    except SampleFileError:
        return False


if __name__ == "__main__":
    run_script(main, __doc__)
