"""Stable Diffusion as the two APIs, with a tiny pipeline of random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from tests.command import call, output_of, typed
from tests.data.test_folder import class_folders
from tests.rejects import rejects


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Path:
    return made_pipeline(tmp_path_factory.mktemp("stable_diffusion"))


def made_pipeline(folder: Path) -> Path:
    """Stable Diffusion as diffusers saves it, tiny, in a new folder in `folder`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(97, 123)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer: Any = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    unet: Any = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4,
    )  # fmt: skip
    vae: Any = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler: Any = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    made: Any = StableDiffusionPipeline(
        vae,
        CLIPTextModel(text),
        tokenizer,
        unet,
        scheduler,
        None,
        None,
        requires_safety_checker=False,  # type: ignore[arg-type]
    )
    made.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def settings(pipeline: Path) -> list[str]:
    labels = ["model.labels=2", "model.prompts=[a cat,a dog]"]
    return ["model=stable_diffusion", f"model.pretrained={pipeline}", "model.image_size=16", "model.steps=4", *labels]


def chosen(folder: Path, *overrides: str) -> Any:
    rest = ["dataset=digits", "method=public_only", "method.conditional=false", "eval=none"]
    return typed(*settings(folder), *overrides, *rest).model


@pytest.fixture
def api(pipeline) -> Any:
    model = chosen(pipeline)
    model.prepare()
    return model.build(None, torch.device("cpu"), 0).api


def test_random_is_reproducible_one_stream_a_sample_and_follows_the_prompt(api):
    labels = np.array([0, 1, 0, 1, 1])
    images = api.random(labels, stream="a")
    assert images.shape == (5, 16, 16, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images[:2], api.random(labels[:2], stream="a"))
    assert not np.array_equal(images, api.random(labels, stream="b"))
    assert not np.array_equal(images, api.random(1 - labels, stream="a"))


def test_a_variation_is_of_its_image_its_degree_and_its_stream(api):
    labels = np.zeros(4, np.int64)
    images = api.random(labels, stream="a")
    varied = api.variation(images, labels, 0.5, stream="v")
    assert np.array_equal(varied, api.variation(images, labels, 0.5, stream="v"))
    others = [(255 - images, 0.5, "v"), (images, 1.0, "v"), (images, 0.5, "w")]
    for other, degree, stream in others:
        assert not np.array_equal(varied, api.variation(other, labels, degree, stream=stream))


SCHEDULERS: list[Any] = [
    DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    PNDMScheduler(skip_prk_steps=True, steps_offset=1),  # one call more than steps
    HeunDiscreteScheduler(steps_offset=1),  # two for each step but the last
]


@pytest.mark.parametrize("guidance", [7.5, 1.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_calls_of_the_plan_are_the_calls_that_are_made(scheduler, guidance, pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", type(scheduler).__name__]}))
    model = chosen(folder, f"model.guidance={guidance}")
    api: Any = model.build(None, torch.device("cpu"), 0).api
    calls: list[int] = []
    api.create.unet.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    labels, images = np.zeros(1, np.int64), np.zeros((1, 16, 16, 3), np.uint8)
    for degree in (None, 0.25, 0.5, 0.9, 1.0):
        calls.clear()
        api.random(labels, stream="a") if degree is None else api.variation(images, labels, degree, stream="a")
        assert sum(calls) == model.calls(degree)


def test_a_plan_knows_the_networks_that_are_there_and_says_where_it_knows_nothing(pipeline):
    def plan(folder: Any) -> dict[str, Any]:
        rest = ["dataset=digits", "method=public_only", "method.conditional=false", "eval=none", "plan_only=true"]
        return json.loads(call(*settings(folder), *rest).out)

    there, missing = plan(pipeline), plan("/nowhere")
    networks = chosen(pipeline).build(None, torch.device("cpu"), 0).api.create
    parts = [networks.unet, networks.vae, networks.text_encoder]
    assert there["model"]["parameters"] == sum(p.numel() for part in parts for p in part.parameters())
    assert there["work"]["flops"] > 0
    assert there["work"]["seconds"] >= 0
    assert (missing["model"]["parameters"], missing["work"]["flops"], missing["work"]["seconds"]) == (None, None, None)
    assert there["work"]["peak_memory_gib"] > 0
    assert missing["work"]["peak_memory_gib"] is None
    assert missing["work"]["network_calls"] == there["work"]["network_calls"]


def test_the_memory_of_a_plan_holds_weights_and_the_larger_pass(pipeline):
    small, large = chosen(pipeline), chosen(pipeline, "model.image_size=32")
    weights = 4 * small.facts()["parameters"]
    assert small.memory() - weights >= 4 * 4 * 8 * 16 * 16  # four images of the decoder's last level, eight channels
    assert 3 < (large.memory() - weights) / (small.memory() - weights) < 5


@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json"])
def test_a_folder_that_a_plan_cannot_read_is_one_line(file, pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    (folder / file).write_text("[")
    with rejects("model.pretrained", folder, f" {file.split('/')[0]}/"):
        chosen(folder).facts()


@pytest.mark.usefixtures("here")
def test_private_evolution_runs_on_it_and_the_certificate_tells_the_prompts(pipeline, tmp_path):
    class_folders(tmp_path / "mine", 30)
    run = [
        "dataset=folder",
        f"dataset.path={tmp_path}/mine",
        "dataset.image_size=16",
        *settings(pipeline),
        "eval=none",
        "device=cpu",
    ]
    run += ["method.num_samples=4", "method.iterations=2", "method.variation_degrees=[0.9,0.5]", "method.lookahead=1"]
    result = call(*run, "method.embedding=pixels", "method.expansions=0")
    assert result.code == 0, result.err
    assert "a cat" in (output_of(Path("run")) / "privacy.json").read_text()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.prompts=[one]", "prompts", ["one"]),
        ("model.image_size=12", "image_size", 12),
        ("model.steps=0", "steps", 0),
        ("model.pretrained=null", "pretrained", None),
        ("model.pretrained=/nowhere", "pretrained", "/nowhere"),
        ("model.steps=1001", "steps", 1001),
    ],
)
def test_wrong_settings_are_refused_by_key(override, key, value, pipeline):
    with rejects(f"model.{key}", value):
        chosen(pipeline, override).prepare()
