"""`model=diffusers`: shape and schedule from what diffusers wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from safetensors.torch import load_file, save_file

from tests.command import call, typed
from tests.rejects import rejects
from tests.toy import tiny_unet

CPU = torch.device("cpu")


def built(*overrides: str) -> Any:
    config = typed(*overrides, "method=public_only", "method.conditional=false", "eval=none")
    config.model.prepare()
    return config.model.build(config.dataset, CPU, 0).denoiser


def test_the_embedded_model_is_the_same_without_its_shape_in_the_settings():
    labels = np.arange(3)
    one, two = (built(f"model={name}", "model.respacing=4") for name in ("digits_unet", "diffusers"))
    assert one.null_label == two.null_label == 10
    assert np.array_equal(one.random(labels, stream="a"), two.random(labels, stream="a"))


WITHOUT_LABELS = ["model=diffusers", "model.labels=1", "model.null_label=false", "model.respacing=4"]


SCHEDULE: Any = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2")


def saved(folder: Path, *, flat: bool = False, pickled: bool = False) -> Path:
    """A pipeline without labels; flat, as google/ddpm-cifar10-32 has it: U-Net and scheduler in the folder itself."""
    pipeline: Any = DDPMPipeline(tiny_unet(num_class_embeds=None), SCHEDULE)
    if flat:
        pipeline.unet.save_pretrained(folder, safe_serialization=not pickled)
        SCHEDULE.save_pretrained(folder)
    else:
        pipeline.save_pretrained(folder)
    return folder


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_a_pipeline_is_read_from_its_parts_or_from_one_folder(tmp_path):
    made = []
    for name, form in {"parts": {}, "flat": {"flat": True}, "pickled": {"flat": True, "pickled": True}}.items():
        model = built(*WITHOUT_LABELS, f"model.pretrained={saved(tmp_path / name, **form)}")
        assert np.allclose(model.alpha_bar, SCHEDULE.alphas_cumprod.numpy())
        made.append(model.random(np.zeros(2, np.int64), stream="a"))
    assert made[0].shape == (2, 8, 8, 1)
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_two_equal_sides_are_one(tmp_path):
    change(saved(tmp_path) / "unet" / "config.json", sample_size=[8, 8])
    model = built(*WITHOUT_LABELS, f"model.pretrained={tmp_path}")
    assert model.random(np.zeros(1, np.int64), stream="a").shape == (1, 8, 8, 1)


PATCHED = [*WITHOUT_LABELS, "model.patch=2"]


def patched(folder: Path, colours: int = 1) -> Path:
    """A U-Net of 8×8 positions, each of them 2×2 pixels."""
    pipeline: Any = DDPMPipeline(tiny_unet(num_class_embeds=None, in_channels=4 * colours, out_channels=4 * colours), SCHEDULE)
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("image_size", "side"), [("null", 16), (16, 16), (15, 15), (9, 9)])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_stored_network_of_patches_makes_images_of_their_pixels(image_size, side, colours, tmp_path):
    choices = [*PATCHED, f"model.pretrained={patched(tmp_path, colours)}", f"model.image_size={image_size}"]
    assert typed(*choices, "method=public_only", "method.conditional=false", "eval=none").model.image_shape == (
        side,
        side,
        colours,
    )
    model = built(*choices)
    images = model.random(np.zeros(2, np.int64), stream="a")
    assert images.shape == (2, side, side, colours)
    assert model.variation(images, np.zeros(2, np.int64), 2, stream="b").shape == images.shape
    assert model.flops()["forward"] > 0


def test_the_embedded_model_of_patches_is_the_same_without_its_shape_in_the_settings():
    labels = np.arange(3)
    shape = ["model.pretrained=printed28", "model.patch=4", "model.image_size=28"]
    one, two = built("model=mnist_patches", "model.respacing=4"), built("model=diffusers", *shape, "model.respacing=4")
    assert np.array_equal(one.random(labels, stream="a"), two.random(labels, stream="a"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("patch", 0, ()),
        ("patch", -2, ()),
        ("patch", 3, ("in_channels", "4")),
        ("image_size", 17, ("16",)),
        ("image_size", 0, ("16",)),
    ],
)
def test_patches_that_the_network_does_not_take_are_refused(key, value, words, tmp_path):
    with rejects(f"model.{key}", value, *words):
        built(*PATCHED, f"model.pretrained={patched(tmp_path)}", f"model.{key}={value}")


def test_without_patches_an_image_is_as_large_as_the_network(tmp_path):
    choices = [*WITHOUT_LABELS, f"model.pretrained={saved(tmp_path)}"]
    assert built(*choices, "model.image_size=8").shape == (1, 8, 8)
    with rejects("model.image_size", 7, "8"):
        built(*choices, "model.image_size=7")
    with rejects("model.patch", 2, "in_channels", "1"):
        built(*choices, "model.patch=2")


UNET, SCHEDULER, WEIGHTS = "unet/config.json", "scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        (WEIGHTS, None, "has no weights"),
        (WEIGHTS, b"", "safetensors is not readable"),
        (WEIGHTS, 2000, "safetensors is not readable"),
        (SCHEDULER, None, "has no scheduler_config.json"),
        (SCHEDULER, b"[]", "holds no settings"),
        (SCHEDULER, {"beta_schedule": "foo"}, "foo is not implemented"),
        (SCHEDULER, {"trained_betas": ["a"]}, "no scheduler that diffusers reads"),
        (SCHEDULER, {"beta_schedule": "linear", "beta_start": 2.0}, "betas are not all"),
        (SCHEDULER, {"prediction_type": "v_prediction"}, "predicts noise"),
        (UNET, None, "has no config.json"),
        (UNET, b"", "config.json is not readable"),
        (UNET, b"\xff", "config.json is not readable"),
        (UNET, b"[]", "holds no settings"),
        (UNET, {"_class_name": "UNet2DConditionModel"}, "not UNet2DModel"),
        (UNET, {"sample_size": None}, "sample_size in the U-Net's config.json is null"),
        (UNET, {"sample_size": [8, 16]}, "sample_size"),
        (UNET, {"in_channels": 4}, "in_channels"),
        (UNET, {"down_block_types": ["Foo", "Foo"]}, "Foo does not exist"),
        (UNET, {"layers": 3}, "unexpected keyword argument 'layers'"),
        (UNET, {"block_out_channels": [16, 32]}, "another shape than config.json's"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_with_the_plan(file, harm, message, tmp_path):
    path = saved(tmp_path) / file
    if harm is None:
        path.unlink()
    elif isinstance(harm, bytes):
        path.write_bytes(harm)
    elif isinstance(harm, int):
        path.write_bytes(path.read_bytes()[:harm])
    else:
        change(path, **harm)
    with rejects("model.pretrained", tmp_path, message):
        typed(*WITHOUT_LABELS, f"model.pretrained={tmp_path}", "method=public_only", "method.conditional=false", "eval=none")


@pytest.mark.parametrize("form", ["missing", "unknown", "pickled and cut off"])
def test_weights_that_do_not_fit_by_name_are_not_made_up(form, tmp_path):
    pickled = form.startswith("pickled")
    folder = saved(tmp_path, flat=True, pickled=pickled)
    if pickled:
        file = folder / "diffusion_pytorch_model.bin"
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        file = folder / "diffusion_pytorch_model.safetensors"
        state = load_file(file)
        state["other.weight"] = state.pop("conv_in.weight") if form == "missing" else torch.zeros(2)
        save_file(state, file)
    with rejects("model.pretrained", folder, "" if pickled else "other.weight"):
        built(*WITHOUT_LABELS, f"model.pretrained={folder}")


def test_other_labels_than_the_networks_are_refused():
    with rejects("model.labels", 12, "11", "10"):
        built("model=diffusers", "model.labels=12")


@pytest.mark.usefixtures("here")
def test_it_runs_from_the_command():
    result = call(
        "model=diffusers", "model.respacing=4", "method=public_only", "method.num_samples=10", "eval=none", "device=cpu"
    )
    assert result.code == 0, result.err
