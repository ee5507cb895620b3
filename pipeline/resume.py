"""Where a run starts or goes on: a run directory with its settings, its ledger and its noise key, and nobody else's."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import yaml

from data.dataset import Dataset
from data.overlap import (
    PUBLIC_DIGESTS,
    pixel_digests,
    read_digests,
    require_private_unseen,
    warn_of_shared_test_images,
)
from data.samples import SampleSet
from errors import reject_unless, unusable
from pipeline.contents import holds_contents
from pipeline.plan import Plan
from privacy.config import Privacy
from privacy.inherited import PublicInput
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from store.identity import difference, digest, plain
from store.run_dir import RunDir
from tracking import ranks
from tracking.progress import console


def already_finished(folder: RunDir, config: Any) -> bool:
    """Whether this very run is there, which is said."""
    found = folder.finished and difference(folder.config.read_text(), config, also_evaluation=True) is None
    if found:
        tell(folder, "finished before, kept")
    return found


def tell(folder: RunDir, text: str) -> None:
    console.print(f"{folder.path}: {text}", highlight=False, soft_wrap=True)


def require_own_folder(folder: RunDir, config: Any) -> None:
    """InputError where the folder is not for these settings. Writes nothing."""
    if folder.in_store and folder.path.name != digest(config):
        problem = f"it is named for other settings than these, whose name is {digest(config)}"
        raise unusable(folder.key, folder.path, problem)
    if folder.in_store and (output := folder.output) and not holds_contents(output):
        problem = f"{output} has neither samples nor a classifier, only the record of a run that made them"
        raise unusable(folder.key, folder.path, problem)
    for place in {folder.path: folder, folder.making.path: folder.making}.values():
        place.require_usable(functools.partial(difference, config=config))


def begin(
    folder: RunDir,
    config: Any,
    plan: Plan,
    privacy: Privacy,
    load: Callable[[], SampleSet],
    device: torch.device,
    inputs: Sequence[PublicInput] = (),
    keep_finished: bool = False,
) -> bool:
    """A fresh run directory with a noise key, or the same run's; InputError where it is neither.

    The lock of `folder.making` is held when this returns. False where another process has finished the run meanwhile and it is
    kept.

    A run that spends goes on with the private images, and every run with the public `inputs`, that it started with: their
    digests are kept under internal/.
    """
    require_own_folder(folder, config)
    waits = functools.partial(tell, folder, "waits for another process, which makes this release") if folder.in_store else None
    folder.making.lock(waits)
    if keep_finished and already_finished(folder, config):
        return False
    require_own_folder(folder, config)  # once more: another process may have been here
    text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
    folder.making.open(text)
    folder.start_with(_images(plan, load) if folder.output else _all_held(plan, load, device, inputs))
    if folder.output is None:  # a release is evaluated without the key, which its holder may have deleted
        ledger = Ledger(folder.ledger, plan.spends, plan.delta, privacy.accountant)
        if ledger.spends and not folder.noise_key.exists() and privacy.noise_seed is None:
            problem = f"it has spends in its ledger but no {folder.noise_key.name}; start a new run"
            raise unusable(folder.key, folder.path, problem)
        NoiseSource.for_run(folder.noise_key, privacy.noise_seed)
    folder.open(text)
    return True


def require_like_nodes(
    folder: RunDir, plan: Plan, load: Callable[[], SampleSet], device: torch.device, inputs: Sequence[PublicInput]
) -> None:
    """InputError where processes on several nodes would not be one run: with keys, images, weights or versions of their own."""
    shared = ranks.share_disk(folder.making.internal)
    reject_unless(shared, folder.key, folder.path, "the nodes do not share it; it must be on a disk that all of them see")
    names = ranks.differing(lambda: {name: value for name, (value, _) in _all_held(plan, load, device, inputs).items()})
    reject_unless(not names, folder.key, folder.path, f"the nodes do not have the same {', '.join(names)}")


def described(folder: RunDir, inputs: Sequence[PublicInput]) -> list[dict[str, Any]]:
    """For a certificate: the public inputs that have files, with the digests that `begin` held the run to."""
    held = json.loads(folder.computed_with.read_text())
    return [one.describe(held[_digests_of(one)]) for one in inputs if one.files]


def _digests_of(one: PublicInput) -> str:
    """Its name in internal/computed_with.json."""
    return f"{one.key} (sha256)"


def begin_evaluation(folder: RunDir, config: Any) -> bool:
    """From the release to its evaluation, which has a lock of its own in the store; False where it is done meanwhile."""
    if folder.making is folder:
        return True
    folder.link_release()
    folder.making.close()
    folder.lock(functools.partial(tell, folder, "waits for another process, which evaluates this release"))
    return not already_finished(folder, config)


def keep_apart(dataset: Dataset, inputs: Sequence[PublicInput], load: Callable[[], SampleSet], opens: bool) -> None:
    """InputError where private images are also among public ones: the user's own, or those that public weights were trained on.

    Test images among the private ones are only told. `opens`: whether the run reads private images anyway; without it they are
    loaded only where there is something to compare them with.
    """
    trained = {one.key: one.path / PUBLIC_DIGESTS for one in inputs if (one.path / PUBLIC_DIGESTS).is_file()}
    public: dict[str, Iterable[np.ndarray]] = {key: [read_digests(file)] for key, file in trained.items()}
    if any(one.key == "dataset.public_path" for one in inputs):
        public["dataset.public_path"] = map(pixel_digests, dataset.own_public_parts())
    if not (opens or public):
        return
    private = pixel_digests(load().images)
    require_private_unseen(private, public)
    warn_of_shared_test_images(private, pixel_digests(dataset.test().images))


def _all_held(
    plan: Plan, load: Callable[[], SampleSet], device: torch.device, inputs: Sequence[PublicInput]
) -> dict[str, tuple[Any, str]]:
    """What a release is made with, from its start to its end and on every node."""
    weights = {_digests_of(one): (one.sha256(), f"other weights under {one.key}") for one in inputs if one.files}
    return _computes_with(device) | weights | _images(plan, load)


def _images(plan: Plan, load: Callable[[], SampleSet]) -> dict[str, tuple[Any, str]]:
    return {"private images (digest)": (load().digest(), "other private images")} if plan.spends else {}


def _computes_with(device: torch.device) -> dict[str, tuple[Any, str]]:
    """What rounding depends on: a resumed run that rounds otherwise would put the same noise on other votes."""
    cuda = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if cuda else f"CPU with {torch.backends.cpu.get_cpu_capability()}"
    values = {"device": processor, "torch": torch.__version__, "diffusers": version("diffusers")}
    return {name: (value, f"{name} {{}}, here is {value}") for name, value in values.items()}
