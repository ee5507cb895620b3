"""A run that starts from what another run released, through the command."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from pipeline import running
from privacy import inherited
from privacy.accounting import compose_epsilon
from privacy.mechanisms import Spend
from tests.command import SMOKE, call, ledger
from tests.rejects import assert_refused

TRAINING = ["method=dp_diffusion", "method.steps=1", "method.batch_size=8", "method.augmult=1", "method.num_samples=10"]
QUICK = [*TRAINING, "tuned=none", "eval=none", "device=cpu"]
FLOOR = ["method=public_only", "method.num_samples=10", "eval=none", "device=cpu"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The model of a private run at epsilon 10."""
    folder = tmp_path_factory.mktemp("base")
    with contextlib.chdir(folder):
        assert call(*QUICK).code == 0
    return folder / "run" / "release" / "model"


def started_from(folder: Path) -> list[str]:
    return ["model=diffusers", f"model.pretrained={folder}", "model.labels=10", "model.null_label=true", "model.respacing=2"]


def certificate(folder: Path = Path("run")) -> dict:
    return json.loads((folder / "release" / "privacy.json").read_text())


def test_samples_of_a_private_model_cost_what_it_cost(base, here):
    done = call(*FLOOR, *started_from(base))
    assert done.code == 0, done.err
    theirs, ours = json.loads((base / "privacy.json").read_text()), certificate()
    assert ours["epsilon"] == theirs["epsilon"] == pytest.approx(10, rel=1e-3)
    assert [m["purpose"] for m in ours["mechanisms"]] == [f"base:{theirs['id']}.dp_sgd"]
    assert ours["id"] != theirs["id"]


def test_training_in_two_goes_costs_both(base, here):
    done = call(*QUICK, *started_from(base), "privacy.epsilon=11")
    assert done.code == 0, done.err
    spends = [Spend.from_dict(m) for m in certificate()["mechanisms"]]
    assert [spend.purpose.split(".")[-1] for spend in spends] == ["dp_sgd", "dp_sgd"]
    assert certificate()["epsilon"] == compose_epsilon(spends, certificate()["delta"]) == pytest.approx(11, rel=1e-3)
    assert ledger(Path("run"))[0].startswith("base:")


def test_the_plan_has_what_was_spent_before(base, here):
    done = call(*QUICK, *started_from(base), "privacy.epsilon=11", "plan_only=true")
    purposes = [event["purpose"] for event in json.loads(done.out)["privacy"]["events"]]
    assert purposes[0].startswith("base:")
    assert purposes[1:] == ["dp_sgd"]


def test_a_budget_of_which_next_to_nothing_is_left_is_refused(base, here):
    spent = json.loads((base / "privacy.json").read_text())["epsilon"]
    refused = call(*QUICK, *started_from(base), f"privacy.epsilon={spent + 1e-6}")
    assert_refused(refused, f"privacy.epsilon={spent + 1e-6}", "base:")


@pytest.mark.parametrize("method", [QUICK, FLOOR, ["method=pe", *SMOKE, "eval=none", "method.variation_degrees=[2,1]"]])
def test_a_budget_that_is_spent_already_is_refused_in_one_line(base, here, method):
    refused = call(*method, *started_from(base), "privacy.epsilon=1")
    assert_refused(refused, "privacy.epsilon=1.0", "spent epsilon=10 at delta=")
    assert not Path("run").exists()


def test_a_base_of_other_people_is_an_assumption_that_the_certificate_repeats(base, here):
    done = call(*QUICK, *started_from(base), "privacy.epsilon=1", "model.base_is_other_data=true")
    assert done.code == 0, done.err
    assert [m["purpose"] for m in certificate()["mechanisms"]] == ["dp_sgd"]
    assert any("other people" in assumption for assumption in certificate()["public_by_assumption"])


def test_a_model_whose_noise_is_known_is_refused(here):
    assert call(*QUICK, "privacy.noise_seed=1").code == 0
    refused = call(*FLOOR, *started_from(Path("run/internal/not_for_release/model")), "hydra.run.dir=next")
    assert_refused(refused, "model.pretrained=run/internal/not_for_release/model", " internal/")
    shutil.copytree("run/internal/not_for_release/model", "copy")
    refused = call(*FLOOR, *started_from(Path("copy")), "hydra.run.dir=next")
    assert_refused(refused, "model.pretrained=copy", "noise_seed=1")


def test_the_certificate_names_public_weights_and_features_with_their_digests(here):
    assert call(*SMOKE, "eval=none", "method.embedding=public_features").code == 0
    inputs = {one["setting"]: one for one in certificate()["public_inputs"]}
    assert set(inputs) == {"model.pretrained", "model.features"}
    assert all(len(digest) == 64 for one in inputs.values() for digest in one["sha256"].values())
    assert "features.safetensors" in inputs["model.features"]["sha256"]
    assert not any(str(Path.cwd()) in json.dumps(one) for one in inputs.values())


def test_digests_of_public_weights_are_taken_once_in_a_run_and_anew_in_the_next(base, here, monkeypatch):
    shutil.copytree(base, "weights")
    read: list[Path] = []

    def counted(file: Path) -> str:
        read.append(file)
        return digest(file)

    digest = inherited.sha256_of
    monkeypatch.setattr(inherited, "sha256_of", counted)
    with monkeypatch.context() as patch:
        patch.setattr(running, "publish", Mock(side_effect=ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            call(*FLOOR, *started_from(Path("weights")))
    schedule = Path("weights/scheduler/scheduler_config.json")
    before = schedule.read_text()
    schedule.write_text(f"{before} ")
    refused = call(*FLOOR, *started_from(Path("weights")))
    assert refused.code == 2
    assert "other weights under model.pretrained" in refused.err
    schedule.write_text(before)
    read.clear()
    assert call(*FLOOR, *started_from(Path("weights"))).code == 0
    assert schedule.name in [file.name for file in read]
    assert len(read) == len(set(read))
    (one,) = certificate()["public_inputs"]
    assert one["sha256"]["scheduler/scheduler_config.json"] == digest(schedule)


def folder_of(name: str, images: np.ndarray) -> str:
    for row, image in enumerate(images):
        place = Path(name, "ab"[row % 2])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row}.png")
    return name


def own(*overrides: str) -> list[str]:
    size = ["dataset.image_size=8", "dataset.image_channels=1", "model.labels=10", "dataset.test_path=test"]
    return ["dataset=folder", "dataset.path=mine", *size, *FLOOR, *overrides]


@pytest.fixture
def pixels(here) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    folder_of("mine", pixels[:20])
    folder_of("test", pixels[20:30])
    return pixels


def test_private_images_among_the_public_ones_are_refused_with_their_number(pixels):
    folder_of("public", pixels[16:40])
    refused = call(*own("dataset.public_path=public"))
    assert_refused(refused, "dataset.public_path", " 4 private images")
    assert not Path("run").exists()


def test_private_images_that_public_weights_were_trained_on_are_refused(pixels):
    from scripts.pretrain_public import main

    folder_of("public", pixels[18:40])
    settings = [o for o in own("dataset.public_path=public") if not o.startswith(("method", "eval"))]
    main([*settings, "out=weights", "recipe.steps=1", "recipe.batch_size=4", "features_steps=0", "half=false"])
    refused = call(*own("model.pretrained=weights"))
    assert_refused(refused, "model.pretrained", " 2 private images")


def test_test_images_among_the_private_ones_are_told(pixels):
    folder_of("test", pixels[:30])
    done = call(*own("dataset.class_counts=laplace", "privacy.class_counts_epsilon=1"))
    assert done.code == 0
    assert "some test images are also private ones" in done.err
    assert "20" not in done.err.split("warning:")[1].splitlines()[0]


def test_none_may_be_held_out_where_no_evaluator_asks_for_test_images(pixels):
    alone = [o for o in own("dataset.test_fraction=0") if not o.startswith(("dataset.test_path", "eval"))]
    pictures = ["eval.frechet.embedding=pixels", "eval.downstream.enabled=false", "eval.pictures.enabled=true"]
    done = call(*alone, *pictures)
    assert done.code == 0, done.err
    refused = call(*alone, "hydra.run.dir=next", "eval.frechet.embedding=pixels")
    assert_refused(refused, "eval.downstream.enabled=true", "dataset=folder")


def test_weights_trained_on_samples_of_a_private_run_carry_what_those_cost(pixels):
    from scripts.pretrain_public import main

    assert call(*QUICK, "hydra.run.dir=private").code == 0
    place = "dataset.public_path=private/release/samples.npz"
    settings = [o for o in own(place) if not o.startswith(("method", "eval", "dataset.test_path"))]
    main([*settings, "out=weights", "recipe.steps=1", "recipe.batch_size=4", "features_steps=0", "half=false"])
    done = call(*FLOOR, "model.pretrained=weights")
    assert done.code == 0, done.err
    spent = certificate(Path("private"))
    assert [m["purpose"] for m in certificate()["mechanisms"]] == [f"base:{spent['id']}.dp_sgd"]
    assert certificate()["epsilon"] == spent["epsilon"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=folder", "dataset.path=mine", "dataset.image_size=8", "dataset.public_path=mine"],
        ["dataset=folder", "dataset.path=mine", "dataset.image_size=8", "dataset.public_path=mine/a"],
        ["dataset=folder", "dataset.path=mine", "dataset.image_size=8", "dataset.test_path=mine"],
        ["dataset=svhn", "dataset.public_name=svhn"],
    ],
    ids=["equal", "nested", "test", "name"],
)
def test_the_private_dataset_is_not_its_own_public_one(pixels, overrides):
    refused = call(*FLOOR, *overrides, "plan_only=true")
    assert_refused(refused, "dataset.")
