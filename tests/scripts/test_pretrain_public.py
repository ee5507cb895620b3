"""The command that makes public models: two steps, resumed, and what they are good for afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data.datasets.digits import Digits, printed
from data.samples import SampleSet
from models.features.spaces import EmbeddingName
from models.public import pretraining
from scripts import pretrain_public
from tests.command import ROOT, in_processes, typed
from tests.rejects import rejects

FAST = ["recipe.steps=3", "recipe.batch_size=8", "recipe.checkpoint_steps=1", "device=cpu"]
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "pretraining").glob("*.yaml"))
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(Digits, "public", lambda self: SampleSet(*printed(100), num_classes=10))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_checked_and_tells_purpose_cost_and_command(name, tmp_path, like_cifar10):
    keys = ("path", "test_path", "public_path") if name == "tinyimagenet32" else ()
    places = [f"dataset.{key}={shutil.copy(like_cifar10, tmp_path / f'{key}.npz')}" for key in keys]
    settings = pretrain_public._settings([f"+pretraining={name}", f"out={tmp_path}", *places])
    assert settings.recipe.steps > 0
    text = (ROOT / "conf" / "pretraining" / f"{name}.yaml").read_text()
    for word in ("Purpose:", "Cost:", f"python -m scripts.pretrain_public +pretraining={name}"):
        assert word in text


def test_two_steps_make_a_model_that_a_run_starts_from(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain_public.main(["+pretraining=digits_step1", *FAST, f"out={one}"])
    pretrain_public.main(["+pretraining=digits_step2", *FAST, f"model.pretrained={one}", f"out={two}"])
    first, second = (load_file(folder / WEIGHTS) for folder in (one, two))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert not (two / "unfinished").exists()
    config = typed(f"model.pretrained={two}", "method=dp_loda")
    config.model.prepare()
    model = config.model.build(config.dataset, torch.device("cpu"), 0)
    assert model.weights == "two"
    assert all(torch.equal(p, second[name]) for name, p in model.denoiser.network.state_dict().items())


def test_features_and_half_precision_are_written_where_asked_for(tmp_path):
    pretrain_public.main([*FAST, "features_steps=2", f"out={tmp_path}/out"])
    assert load_file(tmp_path / "out" / WEIGHTS)["conv_in.weight"].dtype == torch.float16
    config = typed(f"model.pretrained={tmp_path}/out", f"model.features={tmp_path}/out")
    config.model.prepare()
    embedding = config.model.build(config.dataset, torch.device("cpu"), 0).embeddings[EmbeddingName.public_features]
    assert embedding.embed(printed(3)[0]).shape == (3, 64)


def test_a_killed_training_goes_on_and_other_settings_are_refused(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    pretrain_public.main(["+pretraining=digits_step1", *FAST, f"out={whole}"])
    save = pretraining.save_training

    def save_and_die(path: Path, step: int, *rest: Any, **parts: Any) -> None:
        save(path, step, *rest, **parts)
        if step == 2:
            raise KeyboardInterrupt

    parts = ["+pretraining=digits_step1", *FAST, f"out={tmp_path}/parts"]
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "save_training", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            pretrain_public.main(parts)
    assert not (tmp_path / "parts" / "unet").exists()
    with rejects("out", tmp_path / "parts", "unfinished"):
        pretrain_public.main([*parts, "seed=1"])
    pretrain_public.main(parts)
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    with rejects("out", tmp_path / "parts", "U-Net"):
        pretrain_public.main(parts)


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["recipe.steps=0"], "recipe.steps", 0),
        (["+recipe.stepps=1"], "recipe.stepps", 1),
        (["model.pretrained=/nowhere"], "model.pretrained", "/nowhere"),
        (["recipe.classes=[eleven]"], "recipe.classes", "1 of them"),
        (["dataset=svhn", "model=loda_unet"], "dataset", "svhn"),
        (["model.labels=5"], "model.labels", 5),
        (["model=loda_unet"], "model", "loda_unet"),
        (["device=tpu"], "device", "tpu"),
    ],
)
def test_bad_settings_are_refused(overrides, key, value, tmp_path):
    with rejects(key, value):
        pretrain_public.main([*FAST, f"out={tmp_path}/out", *overrides])
    assert not (tmp_path / "out" / "unet").exists()


def test_two_processes_share_the_batches_of_one_training(tmp_path):
    SampleSet(*printed(40), num_classes=10).save(tmp_path / "public.npz")
    (tmp_path / "own").mkdir()
    for i, image in enumerate(printed(20)[0]):
        folder = tmp_path / "own" / str(i % 2)
        folder.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    own = [f"dataset.path={tmp_path}/own", f"dataset.public_path={tmp_path}/public.npz", "dataset.image_size=8"]
    settings = ["dataset=folder", *own, "dataset.image_channels=1", "features_steps=0", *FAST, "recipe.batch_size=7"]
    pretrain_public.main([*settings, f"out={tmp_path}/one", "half=false"])
    done = in_processes(2, "-m", "scripts.pretrain_public", *settings, f"out={tmp_path}/two", "half=false")
    assert done.code == 0, done.err
    assert done.out.count("steps on") == 1
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    difference = sum((one[name] - two[name]).square().sum() for name in one) / sum(w.square().sum() for w in one.values())
    assert float(difference) ** 0.5 < 1e-4
