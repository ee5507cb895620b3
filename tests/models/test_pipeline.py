"""`model=diffusers`: shape and schedule from what diffusers wrote."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

from errors import InputError
from models.network import embedded_or
from tests.command import call, typed
from tests.toy import tiny_unet

CPU = torch.device("cpu")


def built(*overrides: str) -> Any:
    config = typed(*overrides, "method=public_only", "method.conditional=false", "eval=none")
    config.model.prepare()
    return config.model.build(config.dataset, CPU, 0).generator


def test_the_embedded_model_is_the_same_without_its_shape_in_the_settings():
    labels = np.arange(3)
    one, two = (built(f"model={name}", "model.respacing=4") for name in ("digits_unet", "diffusers"))
    assert one.null_label == two.null_label == 10
    assert np.array_equal(one.random(labels, stream="a"), two.random(labels, stream="a"))


def test_a_pipeline_without_labels(tmp_path):
    unet = tiny_unet(num_class_embeds=None)
    scheduler: Any = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2")
    pipeline: Any = DDPMPipeline(unet, scheduler)
    pipeline.save_pretrained(tmp_path)
    model = built(
        "model=diffusers", f"model.pretrained={tmp_path}", "model.labels=1", "model.null_label=false", "model.respacing=4"
    )
    assert np.allclose(model.alpha_bar, scheduler.alphas_cumprod.numpy())
    assert model.random(np.zeros(2, np.int64), stream="a").shape == (2, 8, 8, 1)


@pytest.mark.parametrize("harm", ["labels", "prediction", "kind", "missing"])
def test_what_does_not_fit_is_refused_by_key(harm, tmp_path):
    folder = shutil.copytree(embedded_or("digits"), tmp_path / "copy")
    changes = {"prediction": ("scheduler/scheduler_config.json", "prediction_type", "v_prediction")}
    changes["kind"] = ("unet/config.json", "_class_name", "UNet2DConditionModel")
    if harm in changes:
        file, key, value = changes[harm]
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), key: value}))
    if harm == "missing":
        (folder / "scheduler" / "scheduler_config.json").unlink()
    labels = ["model.labels=12"] if harm == "labels" else []
    with pytest.raises(InputError, match=r"^model\.(pretrained|labels)="):
        built("model=diffusers", f"model.pretrained={folder}", *labels)


@pytest.mark.usefixtures("here")
def test_it_runs_from_the_command():
    result = call(
        "model=diffusers", "model.respacing=4", "method=public_only", "method.num_samples=10", "eval=none", "device=cpu"
    )
    assert result.code == 0, result.err
