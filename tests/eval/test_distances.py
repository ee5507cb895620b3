"""The evaluators of distances: what they yield, under which names, beside which floor."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.samples import SampleSet
from eval.distances import Frechet, InceptionScore, Kernel, Manifold
from eval.evaluator import EvaluationContext, Evaluator, Reference
from eval.frechet import frechet_distance
from models.features.spaces import EmbeddingName
from store.identity import digest
from tests.command import call, typed
from tests.rejects import assert_refused, rejects
from tests.toy import Plane, Toy

EVERY = [Frechet(), Kernel(subsets=5), Manifold(), InceptionScore()]


class Counting(Plane):
    """The two pixels, which are the logits of two classes too; how many images it was shown."""

    shown = 0

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.shown += len(images)
        return super().embed(images)

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        return vectors / 64


@dataclass(kw_only=True)
class Split(Toy):
    held_out: SampleSet

    def train(self) -> SampleSet:
        return self.samples

    def test(self) -> SampleSet:
        return self.held_out


def points(count: int, seed: int, classes: int = 2) -> SampleSet:
    labels = np.arange(count) % classes
    images = np.random.default_rng(seed).normal(80 + 60 * labels[:, None], 15, (count, 2)).round().clip(0, 255)
    return SampleSet(images.astype(np.uint8).reshape(-1, 1, 2, 1), labels, classes)


DATASET = Split(samples=points(200, 0), held_out=points(60, 1))
VECTORS = {name: Plane().embed(split.images) for name, split in (("train", DATASET.samples), ("test", DATASET.held_out))}


def context(samples: SampleSet, cache: Path | None = None, seed: int = 0) -> tuple[EvaluationContext, Counting]:
    embedding: Any = Counting()
    every = dict.fromkeys(EmbeddingName, embedding)
    return EvaluationContext(samples, DATASET, every, None, seed, Path("figures"), cache=cache), embedding  # type: ignore[arg-type]


def numbers(evaluator: Evaluator, samples: SampleSet, **settings: Any) -> dict[str, float]:
    return dict(evaluator.evaluate(context(samples, **settings)[0]))


@pytest.mark.parametrize("reference", Reference)
def test_the_number_of_real_images_is_that_of_the_split(reference):
    count = {"train": 200, "private": 200, "test": 60}[reference.value]
    for evaluator in EVERY[:3]:
        found = numbers(replace(evaluator, reference=reference), points(80, 2))  # type: ignore[type-var]
        assert {value for name, value in found.items() if name.endswith("_n")} == {count}


def test_a_distance_has_its_name_in_inceptions_space_alone():
    for name, elsewhere, in_inception in (("frechet", "frechet", "fid"), ("kernel", "kernel", "kid")):
        evaluator = {"frechet": Frechet(), "kernel": Kernel(subsets=2)}[name]
        for embedding in EmbeddingName:
            first = next(iter(numbers(replace(evaluator, embedding=embedding), points(80, 2))))  # type: ignore[type-var]
            expected = f"{in_inception}/train" if embedding.value == "inception" else f"{elsewhere}/{embedding.value}_train"
            assert first == expected


def test_the_score_has_its_name_with_inceptions_classes_alone():
    assert "inception_score/mean" in numbers(InceptionScore(embedding=EmbeddingName.inception), points(80, 2))
    assert numbers(InceptionScore(), points(80, 2)).keys() == {"class_score/mean", "class_score/spread", "class_score/train"}


def test_the_halves_are_disjoint_and_the_same_in_every_run():
    a, b = context(points(8, 2))[0].halves(Reference.train)
    assert sorted([*a, *b]) == list(range(200))
    for seed in (0, 1):
        again = context(points(8, 3), seed=seed)[0].halves(Reference.train)
        assert np.array_equal(again, [a, b])


def test_the_floor_is_the_distance_between_the_halves_whatever_the_samples():
    a, b = context(points(8, 2))[0].halves(Reference.train)
    expected = frechet_distance(VECTORS["train"][a], VECTORS["train"][b])
    assert expected > 0
    for seed in (2, 3):
        found = numbers(Frechet(), points(80, seed), seed=seed)
        assert found["frechet/public_features_train_floor"] == pytest.approx(expected, rel=1e-9)


def test_samples_as_good_as_real_images_are_near_the_floor_and_worse_ones_are_not():
    good, bad = points(200, 2), points(200, 2)
    bad.images = bad.images // 8
    for evaluator, name in ((Frechet(), "frechet"), (Kernel(subsets=20), "kernel")):
        near, far = numbers(evaluator, good), numbers(evaluator, bad)
        floor = abs(near[f"{name}/public_features_train_floor"]) + near.get(f"{name}/public_features_train_standard_error", 0)
        assert abs(near[f"{name}/public_features_train"]) < 5 * floor
        assert far[f"{name}/public_features_train"] > 10 * floor
    found = numbers(Manifold(), good)
    for measure in ("precision", "recall", "density", "coverage"):
        name = f"{measure}/public_features_train"
        assert found[name] == pytest.approx(found[f"{name}_ceiling"], abs=0.15)
        assert numbers(Manifold(), bad)[name] < 0.2


def test_the_distance_of_a_class_is_that_of_its_images():
    samples = points(80, 2)
    found = numbers(Frechet(per_class=True), samples)
    vectors = Plane().embed(samples.images)
    for label, name in enumerate(DATASET.classes):
        expected = frechet_distance(vectors[samples.labels == label], VECTORS["train"][DATASET.samples.labels == label])
        assert found[f"frechet/public_features_train/class={name}"] == pytest.approx(expected, rel=1e-9)


def test_a_class_without_two_samples_and_samples_without_classes_have_no_distance_by_class():
    one_left = points(80, 2)[np.r_[0:80:2, 1]]
    named = [name for name in numbers(Frechet(per_class=True), one_left) if "class=" in name]
    assert named == ["frechet/public_features_train/class=class 0"]
    assert not [name for name in numbers(Frechet(per_class=True), points(80, 2, classes=1)) if "class=" in name]


def test_a_second_run_reads_what_the_first_kept_and_looks_at_no_real_image(tmp_path):
    evaluator, samples = Frechet(per_class=True), points(80, 2)
    (first, shown), (second, shown_again) = context(samples, tmp_path), context(samples, tmp_path)
    assert dict(evaluator.evaluate(first)) == dict(evaluator.evaluate(second)) == numbers(evaluator, samples)
    assert (shown.shown, shown_again.shown) == (280, 80)


@pytest.mark.parametrize(
    ("evaluator", "count", "key", "value"),
    [
        (Kernel(), 3, "kernel.enabled", "true"),
        (Manifold(k=30, reference=Reference.test), 80, "manifold.k", 30),
        (Manifold(), 5, "manifold.k", 5),
        (InceptionScore(), 9, "inception_score.splits", 10),
    ],
)
def test_too_few_images_are_refused_in_one_line(evaluator, count, key, value):
    with rejects(f"eval.{key}", value):
        numbers(evaluator, points(count, 2))


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="2 or more images, not 1"):
        numbers(Frechet(), points(1, 2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frechet.embedding", "public_features"),
        ("kernel.subsets", 1),
        ("kernel.subset_size", 1),
        ("manifold.k", 0),
        ("inception_score.splits", 0),
        ("inception_score.embedding", "pixels"),
        ("inception_score.embedding", "clip"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(key, value):
    none = ["method=dp_diffusion", "dataset=mnist", "model=mnist_unet", "model.features=null"]
    others = none if value == "public_features" else []
    with rejects(f"eval.{key}", value):
        typed("eval=full", *others, f"eval.{key}={value}")


def test_the_full_evaluation_says_what_each_part_will_take_and_grows_with_the_samples():
    config = typed("eval=full")
    assert {"frechet", "kernel", "manifold", "inception_score"} <= config.eval.evaluators.keys()
    for evaluator in config.eval.evaluators.values():
        few, many = (evaluator.cost(config.dataset, config.model, config.spaces, count) for count in (100, 100_000))
        assert few is not None
        assert many is not None
        assert few.flops > 0
        assert few.bytes > 0
        assert many.flops >= few.flops


def test_the_default_evaluation_stays_what_it_was():
    assert typed().eval.evaluators.keys() == {"frechet", "downstream"}


def test_a_run_with_every_distance_keeps_what_is_of_real_images_under_internal(here):
    every = [f"eval.{name}.enabled=true" for name in ("kernel", "manifold", "inception_score")]
    every += ["eval.frechet.per_class=true", "eval.downstream.enabled=false", "eval.kernel.subsets=2"]
    result = call("method=public_only", "method.num_samples=60", *every, "model.respacing=ddim2", "device=cpu")
    assert result.code == 0, result.err
    metrics = json.loads((here / "run" / "internal" / "metrics.json").read_text())
    groups = {"frechet", "kernel", "precision", "recall", "density", "coverage", "class_score"}
    assert groups <= {name.split("/")[0] for name in metrics}
    assert f"{metrics['frechet/public_features_train_floor']:.1f} apart" in result.out
    kept = {path.relative_to(here).parts[:3] for path in here.rglob("*.npz") if "release" not in path.parts}
    assert kept == {("runs", "internal", "reference_statistics")}
    assert len(list((here / "runs" / "internal" / "reference_statistics").iterdir())) == 3 + 10


def test_several_spaces_and_references_in_one_run_give_what_each_gives_alone():
    names, references = ["public_features", "pixels"], ["train", "test"]
    for evaluator in (Frechet(), Kernel(subsets=5), Manifold()):
        every = numbers(replace(evaluator, embedding=names, reference=references), points(80, 2))  # type: ignore[type-var]
        alone: dict[str, float] = {}
        for name in names:
            for reference in references:
                alone |= numbers(replace(evaluator, embedding=name, reference=reference), points(80, 2))  # type: ignore[type-var]
        assert every == alone
        assert list(every) == list(alone)


def test_the_score_of_the_samples_is_told_once_whatever_it_is_compared_to():
    found = numbers(InceptionScore(embedding=["public_features", "inception"], reference=["train", "test"]), points(80, 2))
    expected = [f"{group}/{part}" for group in ("class_score", "inception_score") for part in ("mean", "spread", "train", "test")]
    assert list(found) == expected


def test_one_and_a_list_of_one_and_members_are_the_same():
    spellings = (Frechet(reference="test"), Frechet(reference=["test"]), Frechet(reference=Reference.test))
    assert len({tuple(evaluator.compared) for evaluator in spellings}) == 1
    assert all(evaluator.needs_test for evaluator in (*spellings, Frechet(reference=["train", "test"])))
    assert not Frechet(reference=["train", "private"]).needs_test


def test_the_cost_of_several_spaces_is_the_work_of_all_and_the_memory_of_the_largest_step():
    config = typed()
    one, other, both = (
        Frechet(embedding=names).cost(config.dataset, config.model, config.spaces, 1000)
        for names in ("public_features", "pixels", ["public_features", "pixels"])
    )
    assert both.flops == pytest.approx(one.flops + other.flops)
    assert max(one.bytes, other.bytes) < both.bytes < one.bytes + other.bytes


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("frechet.reference=validation", "validation"),
        ("frechet.reference=[train,train]", ["train", "train"]),
        ("frechet.reference=[]", []),
        ("frechet.reference=null", None),
        ("manifold.embedding=[pixels,7]", ["pixels", 7]),
        ("kernel.embedding={a:1}", {"a": 1}),
        ("inception_score.embedding=[inception,pixels]", ["inception", "pixels"]),
    ],
)
def test_what_is_no_choice_nor_a_list_of_choices_is_refused_by_name(override, value):
    with rejects(f"eval.{override.split('=')[0]}", value):
        typed("eval=full", f"eval.{override}")


@pytest.mark.usefixtures("here")
def test_several_are_given_on_the_command_line_and_one_leaves_the_run_what_it_was():
    assert digest(typed("eval.frechet.reference=train", "eval.frechet.embedding=public_features")) == digest(typed())
    several = typed("eval.frechet.reference=[test,train]", "eval.frechet.embedding=[pixels,public_features]")
    assert [space.name for space in several.eval.frechet.compared] == [
        "pixels_test", "pixels_train", "public_features_test", "public_features_train"
    ]  # fmt: skip
    assert digest(several) != digest(typed())
    refused = call("eval.frechet.reference=[train,tset]", "plan_only=true")
    assert_refused(refused, "eval.frechet.reference=['train', 'tset']", "train, test, private")
