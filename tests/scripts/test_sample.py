"""Sampling from a released model: shards, resume, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from conf.help import run_script
from data.samples import SampleSet
from models.diffusion.model import DiffusionModel
from models.diffusion.schedules import linear_alpha_bar
from scripts import sample
from store.seal import sealed
from tests.command import ROOT, in_processes
from tests.rejects import ANY, assert_line, rejects
from tests.toy import tiny_unet
from tracking import ranks

SPENT = {"purpose": "dp_sgd", "count": 2, "mechanism": "sampled_gaussian", "noise_multiplier": 1.0, "sample_rate": 0.1}
CERTIFICATE = {"id": "ab12", "private": True, "epsilon": 1.0, "delta": 1e-5, "mechanisms": [SPENT]}


@pytest.fixture
def released(tmp_path):
    model = DiffusionModel(tiny_unet(num_class_embeds=4), linear_alpha_bar(100), 3, "4", guidance=0.5)
    model.save(tmp_path / "release" / "model")
    (tmp_path / "release" / "privacy.json").write_text(json.dumps(CERTIFICATE))
    return tmp_path / "release" / "model"


def shards(folder) -> list[SampleSet]:
    return [SampleSet.load(path) for path in sorted(folder.glob("*.npz"))]


def test_a_saved_model_is_loaded_as_it_was(released):
    model = DiffusionModel.load(released, seed=3, device=torch.device("cpu"))
    assert (model.num_labels, model.respacing, model.guidance, model.null_label, model.seed) == (3, "4", 0.5, 3, 3)
    assert np.allclose(model.alpha_bar, linear_alpha_bar(100), rtol=1e-9)


def test_shards_hold_as_many_images_as_asked_for_in_balanced_classes(released, tmp_path):
    sample.main([f"model={released}", "num_samples=25", "shard=10"])
    parts = shards(tmp_path / "more_samples")
    assert [len(part) for part in parts] == [10, 10, 5]
    assert np.bincount(np.concatenate([part.labels for part in parts])).tolist() == [9, 8, 8]
    assert len(np.unique(np.concatenate([part.images for part in parts]).reshape(25, -1), axis=0)) == 25
    document = json.loads((tmp_path / "more_samples" / "privacy.json").read_text())
    assert document == {**CERTIFICATE, "num_samples": 25, "files": sealed(tmp_path / "more_samples")}
    assert len(document["files"]) == 3 + 1  # and sampling.json


def test_a_base_that_has_spent_what_the_adapter_does_not_say_is_refused(released, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "privacy.json").write_text(json.dumps({**CERTIFICATE, "id": "cd34"}))
    with rejects("base", base, "spent epsilon=1 at delta=1e-05"):
        sample.main([f"model={released}", "num_samples=3", f"base={base}"])


def test_a_killed_run_goes_on_and_a_larger_one_extends_it(released, tmp_path):
    sample.main([f"model={released}", "num_samples=25", "shard=10", f"out={tmp_path}/whole"])
    sample.main([f"model={released}", "num_samples=15", "shard=10", f"out={tmp_path}/parts"])
    (tmp_path / "parts" / "samples_00000.npz").write_bytes(b"torn")
    kept = (tmp_path / "parts" / "samples_00001.npz").stat().st_mtime_ns
    sample.main([f"model={released}", "num_samples=25", "shard=10", f"out={tmp_path}/parts"])
    assert (tmp_path / "parts" / "samples_00001.npz").stat().st_mtime_ns != kept  # held 5 of its 10
    for one, two in zip(shards(tmp_path / "parts"), shards(tmp_path / "whole"), strict=True):
        assert np.array_equal(one.images, two.images)


def test_two_processes_make_the_same_images_and_go_on_where_one_was_killed(released, tmp_path):
    command = [f"model={released}", "num_samples=70", "shard=66"]
    sample.main([*command, f"out={tmp_path}/one"])
    sample.main([f"model={released}", "num_samples=66", "shard=66", f"out={tmp_path}/two"])
    done = in_processes(2, "-m", "scripts.sample", *command, f"out={tmp_path}/two")
    assert done.code == 0, done.err
    assert done.out.count("70 images in") == 1
    for one, two in zip(shards(tmp_path / "one"), shards(tmp_path / "two"), strict=True):
        assert np.array_equal(one.images, two.images)


def test_two_nodes_make_the_same_images_and_need_the_same_model(released, tmp_path, monkeypatch):
    command = [f"model={released}", "num_samples=70", "shard=66"]
    sample.main([*command, f"out={tmp_path}/one"])
    done = in_processes(2, "-m", "scripts.sample", *command, f"out={tmp_path}/two", nodes=2)
    assert done.code == 0, done.err
    for one, two in zip(shards(tmp_path / "one"), shards(tmp_path / "two"), strict=True):
        assert np.array_equal(one.images, two.images)
    monkeypatch.setattr(ranks, "differing", lambda found: list(found())[:1])
    with rejects("model", released, "the nodes do not have the same"):
        sample.main([*command, f"out={tmp_path}/three"])


def test_fewer_samples_than_a_folder_holds_are_refused(released, tmp_path):
    command = [f"model={released}", f"out={tmp_path}/parts", "shard=10"]
    sample.main([*command, "num_samples=25"])
    with rejects("num_samples", 15, "holds more samples already"):
        sample.main([*command, "num_samples=15"])
    assert [len(part) for part in shards(tmp_path / "parts")] == [10, 10, 5]


def test_a_killed_run_does_not_go_on_with_other_weights_in_the_same_place(released, tmp_path):
    command = [f"model={released}", f"out={tmp_path}/parts", "shard=5"]
    sample.main([*command, "num_samples=5"])
    before = json.loads((tmp_path / "parts" / "sampling.json").read_text())
    assert "unet/diffusion_pytorch_model.safetensors" in before[sample.DIGESTS]
    (released / "privacy.json").write_text(json.dumps({**CERTIFICATE, "epsilon": 2.0}))  # which no image depends on
    sample.main([*command, "num_samples=10"])
    unet = tiny_unet(num_class_embeds=4)
    unet.conv_in.bias.data.add_(1)
    DiffusionModel(unet, linear_alpha_bar(100), 3, "4", guidance=0.5).save(released)
    with rejects("out", ANY, "another sha256 of the model"):
        sample.main([*command, "num_samples=15"])
    assert len(shards(tmp_path / "parts")) == 2


def test_samples_from_before_digests_were_kept_go_on(released, tmp_path):
    command = [f"model={released}", f"out={tmp_path}/parts", "shard=5"]
    sample.main([*command, "num_samples=5"])
    stored = tmp_path / "parts" / "sampling.json"
    stored.write_text(json.dumps({key: value for key, value in json.loads(stored.read_text()).items() if key != sample.DIGESTS}))
    sample.main([*command, "num_samples=10"])
    assert len(shards(tmp_path / "parts")) == 2


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["num_samples=0"], "num_samples=0"),
        (["num_samples=3", "respacing=ddim99"], "respacing=ddim99"),
        (["num_samples=3", "sead=1"], "sead"),
        (["num_samples=3", "out=."], "out=."),
        (["num_samples=3", "model=nowhere"], "model=nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(released, arguments, setting, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scripts.sample", f"model={released}", *arguments])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        run_script(sample.main)
    assert end.value.code == 2
    assert_line(capsys.readouterr().err, setting)
