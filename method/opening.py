"""Where a run starts or goes on: a run directory with its settings, its ledger and its noise key, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from data.dataset import Dataset
from data.overlap import PUBLIC_DIGESTS, pixel_digests, require_private_unseen, warn_of_shared_test_images
from data.samples import SampleSet
from errors import InputError, shown
from method.plan import Plan
from privacy.config import Privacy
from privacy.inherited import PublicInput
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from tracking.run_dir import RunDir


def open_folder(
    folder: RunDir,
    cfg: DictConfig,
    plan: Plan,
    load: Callable[[], SampleSet],
    device: torch.device,
    privacy: Privacy,
    inputs: Sequence[PublicInput] = (),
) -> None:
    """A fresh run directory with a noise key, or the same run's; InputError where it is neither.

    A run that spends goes on with the private images, and every run with the public `inputs`, that it started with: their
    digests are kept under internal/. In the store
    of sweeps, a run that differs from another in its evaluation alone goes on with what that one spent and released.
    """
    images = {"private images (digest)": (load().digest(), "other private images")} if plan.spends else {}

    def started_with(run: RunDir) -> dict[str, tuple[Any, str]]:
        weights = {f"{one.key} (sha256)": (one.sha256(), f"other weights under {one.key}") for one in inputs if one.files}
        return images if run.published else _computes_with(device) | weights | images

    begun_alike = not folder.config.exists() or difference(folder.config.read_text(), cfg) is None
    if folder.unspent and begun_alike and (same := _same_but_evaluation(folder, cfg)):
        same.require_started_with(started_with(same))
        folder.adopt(same)
    folder.open(OmegaConf.to_yaml(cfg, resolve=True), lambda stored: difference(stored, cfg), started_with(folder))
    ledger = Ledger(folder.ledger, plan.spends, plan.delta, privacy.accountant)
    if ledger.spends and not folder.noise_key.exists() and privacy.noise_seed is None:
        raise InputError(f"{folder.key}={folder.path}: has spends in its ledger but no {folder.noise_key.name}; start a new run")
    NoiseSource.for_run(folder.noise_key, privacy.noise_seed)


def keep_apart(dataset: Dataset, inputs: Sequence[PublicInput], load: Callable[[], SampleSet], opens: bool) -> None:
    """InputError where private images are also among public ones: the user's own, or those that public weights were trained on.

    Test images among the private ones are only told. `opens`: whether the run reads private images anyway; without it they are
    loaded only where there is something to compare them with.
    """
    trained = {one.key: one.path / PUBLIC_DIGESTS for one in inputs if (one.path / PUBLIC_DIGESTS).is_file()}
    public: dict[str, Iterable[np.ndarray]] = {key: [np.load(file)] for key, file in trained.items()}
    if any(one.key == "dataset.public_path" for one in inputs):
        public["dataset.public_path"] = map(pixel_digests, dataset.own_public_parts())
    if not (opens or public):
        return
    private = pixel_digests(load().images)
    require_private_unseen(private, public)
    warn_of_shared_test_images(private, pixel_digests(dataset.test().images))


def _same_but_evaluation(folder: RunDir, cfg: DictConfig) -> RunDir | None:
    """One with a release, else one that has begun to spend."""
    alike = [run for run in folder.siblings if run.config.exists() and difference(run.config.read_text(), cfg) is None]
    begun = [run for run in alike if _has_samples(run) or (run.ledger.exists() and run.noise_key.exists())]
    return min(begun, key=lambda run: run.published is None, default=None)


def _has_samples(run: RunDir) -> bool:
    """The record of a run may be there, with its certificate and numbers, and its samples elsewhere."""
    return run.published is not None and any(run.published.glob("samples*"))


def _computes_with(device: torch.device) -> dict[str, tuple[str, str]]:
    """What rounding depends on: a resumed run that rounds otherwise would put the same noise on other votes."""
    cuda = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if cuda else f"CPU with {torch.backends.cpu.get_cpu_capability()}"
    values = {"device": processor, "torch": torch.__version__, "diffusers": diffusers.__version__}
    return {name: (value, f"{name} {{}}, here is {value}") for name, value in values.items()}


def difference(stored: str, cfg: DictConfig) -> str | None:
    """The first key in which a stored configuration is another run than this one. Evaluation and tracking may differ."""
    try:
        before, now = (flat(yaml.safe_load(text)) for text in (stored, OmegaConf.to_yaml(cfg, resolve=True)))
    except (AttributeError, yaml.YAMLError):
        return "its config.yaml is of another program"
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and not is_free(key, now):
            return f"{key}: {shown(before.get(key))} before, {shown(now.get(key))} now"
    return None


def is_free(key: str, settings: dict[str, Any]) -> bool:
    """Whether no release depends on this key of the flattened settings."""
    chooses = settings.get("privacy.selection_epsilon") is not None and key.startswith("eval.downstream.")
    return key.split(".")[0] in ("eval", "tracker", "device") and not chooses


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
