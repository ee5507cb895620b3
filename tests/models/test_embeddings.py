"""Inception and CLIP from files of the true formats, with random weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from models.features import embeddings
from models.features.embeddings import Clip, Inception
from models.features.extractors import Pixels, PublicFeatures
from models.features.spaces import EmbeddingName, Embeddings
from models.flops import pass_costs
from models.hosted import CLIP, INCEPTION
from tests.command import call, typed
from tests.rejects import rejects

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    import pytorch_fid.inception as source

    torch.manual_seed(0)
    network = source._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name in ("5b", "5c", "5d"):
        block = source.FIDInceptionA({"5b": 192, "5c": 256, "5d": 288}[name], pool_features={"5b": 32, "5c": 64, "5d": 64}[name])
        setattr(network, f"Mixed_{name}", block)
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", source.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b, network.Mixed_7c = source.FIDInceptionE_1(1280), source.FIDInceptionE_2(2048)
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(image_size=32, patch_size=16)
    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, projection_dim=8)).save_pretrained(folder)
    return folder


def test_a_plan_holds_inceptions_weights_and_a_pass(inception_file):
    spaces, shape = typed("dataset=digits", "eval=none").model.spaces, (32, 32, 3)
    network = Inception(inception_file, CPU).network.to("meta")
    weights = inception_file.stat().st_size  # there twice while they are read
    assert spaces.memory(EmbeddingName.inception, shape) >= 2 * weights + pass_costs(network, shape, 64).bytes
    assert spaces.memory(EmbeddingName.pixels, shape) == 0
    assert spaces.memory(EmbeddingName.public_features, shape) >= 512 * 2 * 4 * 32 * 32 * 32  # in and out of a layer


@pytest.mark.usefixtures("here")
def test_the_plan_of_pe_and_of_an_evaluation_count_the_embedding_once():
    def stated(*overrides: str) -> float:
        rest = ["dataset=digits", "privacy.epsilon=null", "privacy.noise_multiplier=2", "plan_only=true"]
        return json.loads(call(*rest, *overrides).out)["work"]["peak_memory_gib"]

    pixels = stated("eval=none", "method.embedding=pixels")
    every = [f"eval.{name}.embedding=inception" for name in ("frechet", "kernel", "manifold")]
    judged = stated("method.embedding=pixels", *every, "eval.kernel.enabled=true", "eval.manifold.enabled=true")
    assert 1.0 < stated("eval=none", "method.embedding=inception") - pixels < 2
    assert 1.0 < judged - pixels < 3


def test_inception_features_are_those_of_pytorch_fid(inception_file, monkeypatch):
    import pytorch_fid.inception as source

    monkeypatch.setattr(embeddings, "PASS_ROWS", 3)
    embedding = Inception(inception_file, CPU)
    vectors = embedding.embed(IMAGES)
    assert vectors.shape == (3, 2048)
    monkeypatch.setattr(source, "load_state_dict_from_url", lambda *_, **__: torch.load(inception_file, weights_only=True))
    x = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = source.InceptionV3([3]).eval()(x)[0].flatten(1).numpy()
    assert np.abs(vectors - expected).max() < 1e-4 * np.abs(expected).max()


def test_inceptions_logits_are_its_last_layers_without_the_bias(inception_file, monkeypatch):
    import pytorch_fid.inception as source

    monkeypatch.setattr(embeddings, "PASS_ROWS", 3)
    embedding = Inception(inception_file, CPU)
    logits = embedding.logits(embedding.embed(IMAGES))
    monkeypatch.setattr(source, "load_state_dict_from_url", lambda *_, **__: torch.load(inception_file, weights_only=True))
    network = source.fid_inception_v3().eval()
    network.fc.bias.data.zero_()
    x = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = network(torch.nn.functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False)).numpy()
    assert logits.shape == (3, 1008)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_identity_is_of_the_weights(clip_folder):
    one, same = Clip(clip_folder, CPU), Clip(clip_folder, CPU)
    with torch.no_grad():
        other = PublicFeatures()
        before = other.identity
        next(other.parameters()).view(-1)[0] += 1e-3
    assert one.identity == same.identity
    assert len({one.identity, before, other.identity, Pixels().identity}) == 4


def test_clip_vectors_do_not_depend_on_company_and_take_grey(clip_folder):
    embedding = Clip(clip_folder, CPU)
    vectors = embedding.embed(IMAGES)
    assert vectors.shape == (3, 8)
    assert np.array_equal(vectors[1:2], embedding.embed(IMAGES[1:2]))
    grey = IMAGES[..., :1]
    assert np.array_equal(embedding.embed(grey), embedding.embed(np.repeat(grey, 3, axis=3)))


def test_missing_weights_say_how_to_get_them_and_what_runs_without(here, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(here))
    model = typed().model
    with rejects("model.inception", None, INCEPTION.command, "pixels"):
        model.prepare({EmbeddingName.inception})
    with rejects("model.clip", None, CLIP.command, "pixels"):
        model.prepare({EmbeddingName.clip})
    model.prepare({EmbeddingName.pixels, EmbeddingName.public_features})


def test_wrong_weights_are_refused_by_name(tmp_path, clip_folder):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "x.pth")
    with rejects("model.inception", tmp_path / "x.pth"):
        Inception(tmp_path / "x.pth", CPU)
    (tmp_path / "config.json").write_text("{}")
    with rejects("model.clip", tmp_path):
        Clip(tmp_path, CPU)


def test_an_embedding_is_built_where_it_is_first_asked_for(clip_folder):
    made = []

    def make(name: EmbeddingName) -> Clip:
        made.append(name)
        return Clip(clip_folder, CPU)

    lazy = Embeddings(make)
    assert lazy[EmbeddingName.clip] is lazy[EmbeddingName.clip]
    assert made == [EmbeddingName.clip]
