"""The user as the unit of privacy: all images of one person move every statistic by no more than one image does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.listed import uniform
from data.private import PrivateDataset
from data.samples import PARTS, SampleSet
from dp_finetune.engines import ViewsEngine
from dp_finetune.optimizer import PrivateOptimizer
from dp_finetune.training import Trainer
from method import Method
from models.ema import EMA
from models.neighbours import NeighbourBackend
from moments.mechanism import Weights, location_sums, weighted_sums
from pe.histogram import VoteNoise, count_votes, noisy_votes
from pipeline.plan import Plan
from privacy.accounting import Accountant
from privacy.config import Privacy
from privacy.inherited import Inherited
from privacy.ledger import Ledger
from privacy.mechanisms import DiscreteGaussian, Gaussian, SampledGaussian, Spend, Unit
from privacy.noise import NoiseSource
from tests.command import call, output_of
from tests.data.test_folder import folder, picture, png
from tests.data.test_layouts import put, table
from tests.rejects import ANY, assert_refused, rejects

SIZES = [1, 2, 3, 1000]


def images_of(*counts: int, classes: int = 3, seed: int = 0) -> SampleSet:
    """Users with so many images each, in any class."""
    rng, total = np.random.default_rng(seed), sum(counts)
    users = np.repeat(np.arange(len(counts)), counts)
    pixels = rng.integers(0, 256, (total, 8, 8, 1)).astype(np.uint8)
    return SampleSet(pixels, rng.integers(0, classes, total), classes, users=users)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_shares_of_a_user_are_one_together_and_whole_ones_never_more(counts):
    samples = images_of(*counts)
    assert samples.users is not None
    assert samples.num_units == len(counts)
    assert np.bincount(samples.users, samples.shares()) == pytest.approx(1)
    whole = np.bincount(samples.users, samples.whole_shares)
    assert (whole <= PARTS).all()
    assert (whole > PARTS - max(counts)).all()
    assert [len(rows) for rows in samples.units or []] == counts


def test_without_users_every_image_is_a_unit():
    samples = SampleSet(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int64), 1)
    assert (samples.num_units, samples.units, samples.parts, samples.shares().tolist()) == (3, None, 1, [1, 1, 1])


def test_rows_keep_their_users_and_the_digest_tells_them():
    samples = images_of(2, 3)
    assert samples[np.array([1, 4])].users.tolist() == [0, 1]  # type: ignore[union-attr]
    assert samples.digest() != SampleSet(samples.images, samples.labels, 3).digest()


# Sensitivity


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("spread", ["one bin", "all bins"])
def test_all_images_of_a_user_move_the_votes_by_one_together(count, spread):
    points = np.eye(4, dtype=np.float32)
    theirs = points[np.zeros(count, int) if spread == "one bin" else np.arange(count) % 4]
    samples = images_of(count, classes=1)
    votes = count_votes(theirs, samples.labels, points, np.zeros(4, np.int64), NeighbourBackend.torch, samples.whole_shares)
    assert np.abs(votes).sum() <= PARTS
    assert votes.sum() > PARTS - count


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("kind", ["alike", "random", "apart"])
def test_all_images_of_a_user_move_the_moments_by_one_together(count, kind):
    rng, samples = np.random.default_rng(1), images_of(count)
    z = {
        "alike": np.tile(np.eye(5)[0], (count, 1)),
        "random": rng.normal(size=(count, 5)),
        "apart": np.where(np.arange(count)[:, None] % 2 == 0, 1.0, -1.0) * np.eye(5)[0],
    }[kind]
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    for groups in (np.zeros(count, int), samples.labels):
        for weights in (Weights.of(0.1, 0.7, 0.7), Weights.of(0.2, 1, 0)):
            assert np.linalg.norm(weighted_sums(z, groups, 3, weights, samples.shares())) <= 1
    assert np.linalg.norm(location_sums(z, samples.shares())) <= 1


@pytest.mark.parametrize("count", SIZES)
def test_all_images_of_a_user_move_class_counts_by_one_together(count):
    samples = images_of(count)
    counts = np.zeros(3, np.int64)
    np.add.at(counts, samples.labels, samples.whole_shares)
    assert np.abs(counts).sum() <= PARTS


class Loud(torch.nn.Module):
    """Its gradient for an example is as long as its pixels make it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(64))


class LoudViews:
    augmult = 4

    def __init__(self, x: torch.Tensor, examples: int = 1):
        self.x, self.examples = x, examples

    def part(self, rows: slice, examples: int = 1) -> LoudViews:
        return LoudViews(self.x[rows], examples)

    def losses(self, network: Loud, bfloat16: bool = False) -> torch.Tensor:
        return 1e3 * self.x.flatten(1) @ network.weight


class LoudObjective:
    augmult = 4
    asked: list[tuple[int, ...]]

    def __init__(self) -> None:
        self.asked = []

    def encode(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).float().permute(0, 3, 1, 2)

    def views(self, x, labels, examples, step) -> LoudViews:
        self.asked.append(tuple(x.shape))
        return LoudViews(x.flatten(0, 1))


def trainer(network: Loud, objective: LoudObjective, folder: Path) -> Trainer:
    engine = ViewsEngine(network, 4, 4)
    optimizer = PrivateOptimizer(
        torch.optim.SGD(engine.parameters, lr=1.0), noise_multiplier=1.0, max_grad_norm=0.5, expected_batch_size=1
    )
    return Trainer(
        network=network,
        engine=engine,
        objective=objective,  # type: ignore[arg-type]
        optimizer=optimizer,
        ema=EMA(network, 0.0),
        mechanism=SampledGaussian(1.0, 0.5),
        noise=NoiseSource(bytes(32)),
        checkpoint=folder / "training.pt",
        device=torch.device("cpu"),
        model_labels=np.arange(3),
    )


@pytest.mark.parametrize("count", SIZES)
def test_a_user_has_one_clipped_gradient_whose_views_are_of_their_images(count, tmp_path):
    samples, objective, network = images_of(count, 1), LoudObjective(), Loud()
    one = trainer(network, objective, tmp_path)
    rows = one.images_of(samples, np.array([0]), step=1)
    assert rows.shape == (1, 4)
    assert (samples.users[rows] == 0).all()  # type: ignore[index]
    one.add(samples.images[rows], samples.labels[rows], np.array([0]), 1)
    assert objective.asked == [(1, 4, 1, 8, 8)]
    assert float(one.optimizer.total.norm()) <= 0.5
    assert float(one.optimizer.total.norm()) == pytest.approx(0.5)
    again = one.images_of(samples, np.array([0]), step=2)
    assert count < 3 or not np.array_equal(rows, again)


# Accounting


def test_noise_on_parts_of_a_vote_is_that_of_whole_votes():
    zeros = np.zeros(300, np.int64)
    noisy = noisy_votes(zeros, VoteNoise.discrete_gaussian, 3.0, NoiseSource(bytes(32)).stream("votes"), parts=PARTS)
    assert noisy.std() == pytest.approx(3.0, rel=0.15)
    assert len(np.unique(noisy)) == 300
    assert VoteNoise.discrete_gaussian.mechanism(3.0, Unit.user) == Gaussian(3.0)
    assert VoteNoise.discrete_gaussian.mechanism(3.0) == DiscreteGaussian(3.0)


def test_a_model_is_a_base_for_runs_that_protect_the_same_unit(tmp_path):
    """A user with an image less is another user to a mechanism that bounds users: two of its units apart, not one."""
    from privacy.inherited import PublicInput

    (tmp_path / "unet").mkdir()
    document = {
        "id": "ab",
        "private": True,
        "epsilon": 1.0,
        "delta": 1e-5,
        "dataset": "mine",
        "mechanisms": [{"purpose": "dp_sgd", "count": 1, "mechanism": "gaussian", "noise_multiplier": 4.0}],
    }
    for unit, other in ((Unit.image, Unit.user), (Unit.user, Unit.image)):
        (tmp_path / "privacy.json").write_text(json.dumps({**document, "unit": unit.value}))
        inputs = [PublicInput("model.pretrained", tmp_path)]
        assert Inherited.of(inputs, dataset="mine").certificate()["unit"] == unit.value
        assert Inherited.of(inputs, dataset="mine", unit=unit).spends
        for of_others in (False, True):  # what is said of it now does not change what it protects
            with rejects("model.pretrained", ANY, f"single {unit.plural}"):
                Inherited.of(inputs, of_others, dataset="mine", unit=other)


# Whose images they are


def hospital(root: Path, patients: int = 60, most: int = 3) -> Path:
    """Patients with one to `most` images, some of them in both classes."""
    names = [(p, i) for p in range(patients) for i in range(1 + p % most)]
    return put(root, {f"{('ill', 'well')[(p + i) % 2]}/patient{p:03d}/{i}.png": png(picture()) for p, i in names})


PATTERN = r"patient(\d+)"


def test_no_user_lies_on_both_sides(tmp_path):
    dataset = folder(hospital(tmp_path), user_pattern=PATTERN)
    dataset.unit = Unit.user
    dataset.check()
    dataset.prepare()
    private, test = dataset._lists
    assert not set(private.users or []) & set(test.users or [])
    assert dataset.num_private == dataset.num_users == len(set(private.users or [])) == dataset.private().num_units
    assert dataset.num_private < dataset.num_private_images
    counted = [dataset.facts()["n_private"], dataset.guarantee()["private_users"]]
    assert counted == [dataset.num_private] * 2
    assert str(dataset.num_private_images) not in dataset.chosen


def test_a_pattern_that_finds_every_image_a_user_of_its_own_is_told(tmp_path):
    place = hospital(tmp_path)
    told = [" ".join(folder(place, user_pattern=pattern).layout_notes()) for pattern in (PATTERN, r".+")]
    assert ["does dataset.user_pattern find the person" in notes for notes in told] == [False, True]


def test_a_user_for_each_image_is_no_unit_of_its_own_and_one_for_all_is_none(tmp_path):
    place = hospital(tmp_path)
    for pattern, unit in ((r".+", Unit.user), ("()patient", Unit.image), (r"\.png", Unit.image)):
        dataset = folder(place, user_pattern=pattern)
        dataset.unit = unit  # type: ignore[misc]
        with rejects("dataset.user_pattern", pattern):
            dataset.check()


def test_the_certificate_says_how_users_were_told_apart(tmp_path):
    dataset = folder(hospital(tmp_path), user_pattern=PATTERN)
    assert f"whose an image is, as dataset.user_pattern={PATTERN} finds it" not in dataset.assumptions()
    dataset.unit = Unit.user  # type: ignore[misc]
    assert f"whose an image is, as dataset.user_pattern={PATTERN} finds it" in dataset.assumptions()


def test_one_user_more_moves_no_other(tmp_path):
    before = folder(hospital(tmp_path), user_pattern=PATTERN)
    held = set(before._lists[1].users or [])
    put(tmp_path, {f"ill/patient999/{i}.png": png(picture()) for i in range(5)})
    assert held <= set(folder(tmp_path, user_pattern=PATTERN)._lists[1].users or [])


def test_a_fraction_takes_whole_users(tmp_path):
    dataset = folder(hospital(tmp_path), user_pattern=PATTERN, fraction=0.5)
    dataset.unit = Unit.user
    chosen = dataset.private()
    assert chosen.num_units == dataset.num_private
    users = folder(tmp_path, user_pattern=PATTERN)._lists[0].users or []
    taken = {users[row] for row in dataset._rows}
    assert len(chosen) == sum(user in taken for user in users)


def test_users_may_be_a_column(tmp_path):
    put(tmp_path, {f"{i}.png": png(picture()) for i in range(4)})
    put(tmp_path, {"labels.csv": table("file,label,patient", "0.png,a,x", "1.png,b,x", "2.png,a,y", "3.png,b,z")})
    dataset = folder(tmp_path, user_column="patient", test_fraction=0)
    dataset.unit = Unit.user
    dataset.check()
    assert (dataset.num_private, dataset.private().images_of_unit.tolist()) == (3, [2, 2, 1, 1])


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ({}, "privacy.unit", ("whose its images are",)),
        ({"user_pattern": "("}, "dataset.user_pattern", ("regular expression",)),
        ({"user_pattern": r"person(\d+)"}, "dataset.user_pattern", ("finds no user in",)),
    ],
)
def test_users_that_cannot_be_told_are_refused(settings, key, words, tmp_path):
    dataset = folder(hospital(tmp_path, 20), **settings)
    dataset.unit = Unit.user
    with rejects(key, ANY, *words):
        dataset.check()


def test_a_user_on_both_sides_of_a_split_of_ones_own_is_refused(tmp_path):
    dataset = folder(hospital(tmp_path / "a", 20), test_path=str(hospital(tmp_path / "b", 20)), user_pattern=PATTERN)
    with rejects("dataset.test_path", ANY, "user 000"):
        dataset.check()


def test_a_user_among_public_images_is_refused(tmp_path):
    private, public = hospital(tmp_path / "a", 60), str(hospital(tmp_path / "b", 5))
    dataset = folder(private, public_path=public, user_pattern=PATTERN)
    with rejects("dataset.public_path", ANY, "private ones too"):
        dataset.check()


def test_test_images_have_to_say_whose_they_are_too(tmp_path):
    files = {f"{i}.png": png(picture()) for i in range(4)}
    put(tmp_path / "a", {**files, "labels.csv": table("file,label,who", *(f"{i}.png,{i % 2},u{i}" for i in range(4)))})
    put(tmp_path / "b", {f"{i % 2}/{i}.png": png(picture()) for i in range(4)})
    dataset = folder(tmp_path / "a", test_path=str(tmp_path / "b"), user_column="who")
    with rejects("dataset.user_column", "who"):
        dataset.check()


def test_classes_that_are_users_are_refused(tmp_path):
    """Names of classes are in the certificate."""
    put(tmp_path, {f"patient{p}/{i}.png": png(picture()) for p in range(3) for i in range(9)})
    dataset = folder(tmp_path, user_pattern=PATTERN, test_fraction=0)
    with rejects("dataset.path", ANY, "classes are its users"):
        dataset.check()


def test_a_pattern_finds_nobody_in_numbers_of_rows(tmp_path):
    np.savez(tmp_path / "x.npz", images=images_of(4).images, labels=np.array([0, 1, 0, 1]))
    dataset = folder(tmp_path / "x.npz", test_path=str(tmp_path / "x.npz"), user_pattern=r"(\d+)")
    with rejects("dataset.user_pattern", ANY, "no names of their own"):
        dataset.check()


def test_both_a_pattern_and_a_column_are_refused(tmp_path):
    put(tmp_path, {"u1.png": png(picture()), "labels.csv": table("file,label,who", "u1.png,a,x")})
    with rejects("dataset.user_pattern", ANY, "already"):
        folder(tmp_path, user_pattern="u1", user_column="who").check()


def test_images_without_users_are_no_private_ones_of_a_run_that_protects_users(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", [Spend("votes", Gaussian(1.0))], 1e-5, Accountant.pld)
    private = PrivateDataset(lambda: images_of(1, 2)[np.arange(3)], 2, 3, ledger)
    with pytest.raises(ValueError, match="it is image"):
        private.spend("votes", Gaussian(1.0))


# Whole runs


def run_of(root: Path, out: str, *settings: str) -> Path:
    result = call("dataset=folder", f"dataset.path={root}", "dataset.image_size=8", "dataset.image_channels=1",
                  "privacy.noise_seed=1", "device=cpu", "eval=none", f"hydra.run.dir={out}", *settings)  # fmt: skip
    assert result.code == 0, result.err
    return output_of(Path(out))


GENERATOR = ["method.num_samples=20", "method.steps=2", "method.batch_size=8", "method.width=2"]
METHODS = {
    "dp_moments": ["method=dp_moments", "method.num_samples=20"],
    "dp_merf": ["method=dp_merf", "method.num_features=50", *GENERATOR],
    "dp_mepf": ["method=dp_mepf", "method.embedding=pixels", *GENERATOR],
    "dp_diffusion": ["+experiment=dp_diffusion/smoke", "method.steps=2", "method.num_samples=4", "model.respacing=4"],
    "dp_classifier": ["method=dp_classifier", "method.classifier=cnn", "method.steps=2", "method.batch_size=8"],
    "dp_teacher": ["method=dp_teacher", "method.num_samples=20", "method.steps=2", "method.warm_up.num_samples=40"],
    "pe": ["+experiment=smoke", "method.num_samples=8", "method.iterations=1", "method.variation_degrees=[3]"],
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("method", ["dp_moments", "dp_merf", "dp_diffusion"])
def test_users_of_one_image_each_are_bitwise_the_images(method, tmp_path):
    root = hospital(tmp_path / "mine", 60, most=1)
    held_out = next(number for number in range(1000, 2000) if uniform(str(number)) < 0.2)  # with two images
    put(root, {f"ill/patient{held_out}/{i}.png": png(picture()) for i in range(2)})
    whose = f"dataset.user_pattern='{PATTERN}'"
    by_unit = [run_of(root, unit, f"privacy.unit={unit}", whose, *METHODS[method]) for unit in ("image", "user")]
    image, user = (SampleSet.load(out / "samples.npz") for out in by_unit)
    np.testing.assert_array_equal(image.images, user.images)
    certificates = [json.loads((out / "privacy.json").read_text()) for out in by_unit]
    assert [c["unit"] for c in certificates] == ["image", "user"]
    assert certificates[0]["epsilon"] == certificates[1]["epsilon"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", ["uniform", "laplace"])
def test_every_method_runs_with_users_and_certifies_them(method, counts, tmp_path):
    root = hospital(tmp_path / "mine")
    more = ["dataset.class_counts=laplace", "privacy.class_counts_epsilon=0.5"] if counts == "laplace" else []
    out = run_of(root, "run", "privacy.unit=user", f"dataset.user_pattern='{PATTERN}'", *METHODS[method], *more)
    document = json.loads((out / "privacy.json").read_text())
    dataset = folder(root, user_pattern=PATTERN)
    dataset.unit = Unit.user
    assert (document["unit"], document["neighbouring"]) == ("user", Unit.user.neighbouring)
    assert document["private_users"] == dataset.num_private
    assert f"number of users: {dataset.num_private}" in document["public_by_assumption"]
    told = json.dumps({key: value for key, value in document.items() if key not in ("id", "public_inputs")})
    assert not re.search(rf"\b{dataset.num_private_images}\b", told)
    assert document["delta"] == Privacy(unit=Unit.user).delta_for(dataset.num_private)


@pytest.mark.usefixtures("here")
def test_a_dataset_without_users_refuses_the_unit():
    assert_refused(call("privacy.unit=user"), "privacy.unit=user", "dataset=digits")


def test_a_method_that_bounds_images_is_refused(tmp_path):
    @dataclass(kw_only=True)
    class OfImages(Method):
        name: str = "of_images"

        def spends(self, noise_multiplier, dataset, privacy) -> list[Spend]:
            return [Spend("mine", Gaussian(noise_multiplier))]

    dataset = folder(hospital(tmp_path), user_pattern=PATTERN)
    Plan.make(OfImages(), dataset, Privacy(epsilon=1.0))
    dataset.unit = Unit.user
    with rejects("privacy.unit", ANY, "of_images"):
        Plan.make(OfImages(), dataset, Privacy(epsilon=1.0, unit=Unit.user))


@pytest.mark.usefixtures("here")
def test_a_plan_counts_users(tmp_path):
    root = hospital(tmp_path / "mine")
    place = [f"dataset.path={root}", f"dataset.user_pattern='{PATTERN}'"]
    plan = json.loads(call("dataset=folder", *place, "dataset.image_size=8", "privacy.unit=user", "plan_only=true").out)
    users = set(folder(root, user_pattern=PATTERN)._lists[0].users or [])
    assert (plan["privacy"]["unit"], plan["dataset"]["n_private"]) == ("user", len(users))


def test_a_plan_of_some_dozens_of_patients_says_that_they_are_too_few(here):
    rows = [f"{number % 34:03d},1,{number},0,{number % 2},0,0" for number in range(340)]
    rows += [f"{number % 3 + 90:03d},1,{number},0,{number % 2},2,2" for number in range(6)]
    table = "\n".join([",".join(["patient", "node", "x_coord", "y_coord", "tumor", "center", "split"]), *rows])
    put(Path("wilds"), {"metadata.csv": table})
    settings = [
        "dataset=camelyon17",
        "dataset.path=wilds",
        "method=dp_moments",
        "eval=none",
        "plan_only=true",
        "privacy.epsilon=10",
    ]
    result = call(*settings, "privacy.unit=user")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert (plan["dataset"]["n_private"], plan["privacy"]["unit"]) == (34, "user")
    assert plan["hints"][0].startswith("34 users in 2 classes are too few for epsilon=10")
    assert not json.loads(call(*settings).out)["hints"]
