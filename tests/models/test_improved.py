"""`model=improved_diffusion_…`: an official file by path, converted once; it makes images of its own size."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from errors import InputError
from models.diffusion.improved_diffusion import to_unet
from models.diffusion.model import DiffusionModel
from models.public import improved
from models.public.improved import ImprovedDiffusion
from tests.command import call, output_of, typed
from tests.data.test_folder import class_folders
from tests.models.test_improved_diffusion import made_weights
from tests.rejects import ANY, assert_refused, rejects
from tracking import ranks

CPU = torch.device("cpu")
MINI = ["model.image_size=32", "model.channels=[32,64,64,64]", "model.blocks=1", "model.attention_levels=[1,2]"]
MINI += ["model.respacing=4"]
OFFICIAL = {"cond": 273_049_350, "uncond": 121_063_942}


def settings(name: str, file: Path, *more: str) -> list[str]:
    return [f"model=improved_diffusion_imagenet64_{name}", f"model.pretrained={file}", *MINI, *more]


def model(name: str, file: Path, *more: str) -> Any:
    config = typed(*settings(name, file, *more), "dataset=cifar10", "method=public_only", "method.conditional=false", "eval=none")
    config.model.prepare()
    return config.model


@pytest.fixture(params=list(OFFICIAL))
def official(request, tmp_path) -> tuple[str, Path]:
    file = tmp_path / "imagenet64_mini.pt"
    torch.save(made_weights(f"mini_{request.param}", 0), file)
    return request.param, file


def test_patches_are_refused(official):
    name, file = official
    with rejects("model.patch", 2):
        model(name, file, "model.patch=2")


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_plan_of_the_official_models_needs_no_file(name):
    config = typed(
        f"model=improved_diffusion_imagenet64_{name}",
        "dataset=cifar10",
        "method=public_only",
        "method.conditional=false",
        "eval=none",
    )
    assert config.model.facts()["parameters"] == OFFICIAL[name]
    with rejects("model.pretrained", config.model.pretrained, "official"):
        config.model.prepare()


def test_a_file_is_converted_once_and_makes_the_images_of_its_network(official, monkeypatch):
    name, file = official
    made = model(name, file).build(None, CPU, 0).denoiser
    labels = np.arange(2) % made.num_labels
    images = made.random(labels, stream="a")
    direct = DiffusionModel(
        to_unet(made_weights(f"mini_{name}", 0), 32), made.alpha_bar, made.num_labels, "4", timestep_scale=made.timestep_scale
    )
    assert np.array_equal(images, direct.random(labels, stream="a"))
    assert made.timestep_scale == (1.0 if name == "cond" else 0.25)
    file.unlink()
    monkeypatch.setattr(ImprovedDiffusion, "_convert", lambda *_: pytest.fail("converted again"))
    again = model(name, file).build(None, CPU, 0).denoiser
    assert np.array_equal(images, again.random(labels, stream="a"))


def test_one_of_several_processes_converts_and_the_others_wait_for_it(official, monkeypatch):
    name, file = official
    convert = ImprovedDiffusion._convert

    def wait(problem: Any) -> Any:  # for rank 0, which has converted then
        convert(chosen, chosen._file, chosen.weights_folder())
        return problem

    chosen = model(name, file)
    monkeypatch.setattr(ImprovedDiffusion, "_convert", lambda *_: pytest.fail("converted twice"))
    monkeypatch.setattr(ranks, "share", lambda: 1)
    monkeypatch.setattr(ranks, "broadcast", wait)
    chosen.load_unet(0)
    monkeypatch.setattr(ranks, "broadcast", lambda _: InputError("said by rank 0"))
    with rejects(None, ANY, "said by rank 0"):
        chosen.load_unet(0)


def test_a_folder_that_cannot_be_written_is_named_and_left_as_it_was(official, monkeypatch):
    def read_only(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    name, file = official
    monkeypatch.setattr(improved, "write_json", read_only)
    with rejects("model.pretrained", file, "Read-only file system"):
        model(name, file).load_unet(0)
    assert list(file.parent.iterdir()) == [file]


def test_a_saved_model_keeps_its_heads(official, tmp_path):
    name, file = official
    made = model(name, file).build(None, CPU, 0).denoiser
    made.save(tmp_path / "saved")
    again = DiffusionModel.load(tmp_path / "saved", 0, CPU)
    labels = np.zeros(2, np.int64)
    assert np.array_equal(made.random(labels, stream="a"), again.random(labels, stream="a"))


@pytest.mark.parametrize("harm", ["text", "pickle", "other"])
def test_a_wrong_file_is_refused_by_name(harm, tmp_path):
    file = tmp_path / "x.pt"
    if harm == "text":
        file.write_text("hello")
    elif harm == "pickle":  # what would run code is not loaded
        file.write_bytes(pickle.dumps(print))
    else:
        torch.save({"weight": torch.zeros(2)}, file)
    with rejects("model.pretrained", file):
        model("cond", file).build(None, CPU, 0)


def test_a_checkpoint_of_another_shape_is_refused(official):
    name, file = official
    with rejects("model.pretrained", file, "shape"):
        model(name, file, "model.channels=[64,64,64,64]").build(None, CPU, 0)


@pytest.mark.usefixtures("here")
def test_private_images_may_be_smaller_than_the_models(official, tmp_path):
    name, file = official
    class_folders(tmp_path / "mine", 30)
    overrides = ["dataset=folder", f"dataset.path={tmp_path}/mine", "dataset.image_size=16", *settings(name, file)]
    pe = ["method.num_samples=4", "method.iterations=1", "method.variation_degrees=[2]", "method.lookahead=0"]
    pe += ["method.embedding=pixels", "method.initial_labels=random", "method.expansions=0"]
    eval_ = ["eval.frechet.embedding=pixels", "eval.downstream.steps=1", "eval.downstream.batch_size=4", "device=cpu"]
    result = call(*overrides, *pe, *eval_)
    assert result.code == 0, result.err
    with np.load(output_of(Path("run")) / "samples.npz") as samples:  # type: ignore[operator]
        assert samples["images"].shape == (4, 32, 32, 3)
    refused = call(*overrides, "method=dp_diffusion", "method.batch_size=4", "eval=none", "hydra.run.dir=second")
    assert_refused(refused, f"model=improved_diffusion_imagenet64_{name}" if name == "cond" else "model.labels=1")
