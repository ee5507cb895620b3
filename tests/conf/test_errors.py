"""Bad input: exit status 2 and one line that names the key, the value and what is allowed; nothing else is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pe.evolution import PrivateEvolution
from privacy.noise import NoiseSource
from tests.command import Result, call

NOISE = ["privacy.epsilon=null", "privacy.noise_multiplier=2"]  # no search for a noise multiplier: quick to plan
RUN = [*NOISE, "method.num_samples=10", "eval=none", "device=cpu"]
SETTINGS = [*RUN, "method.noise=gaussian", "method.iterations=2", "method.variation_degrees=[2,1]", "method.expansions=0"]


def bad(name: str, overrides: str, *words: str):
    return pytest.param(overrides.split(), words, id=name)


BAD = [
    bad("new-labels-as-they-are", "method=public_only model.new_labels=true", "model.new_labels=True", "needs the labels"),
    bad("keep-unknown", "dataset.keep_classes=[cat]", "dataset.keep_classes=['cat']", "different ones of 0"),
    # the budget
    bad("epsilon-and-sigma", "privacy.noise_multiplier=1", "privacy.epsilon=10.0", "privacy.noise_multiplier=1.0", "exactly one"),
    bad("no-epsilon-no-sigma", "privacy.epsilon=null", "privacy.epsilon=null", "privacy.noise_multiplier=null", "exactly one"),
    bad("delta-0", "privacy.delta=0", "privacy.delta=0.0", "between 0 and 1"),
    bad("delta-1", "privacy.delta=1", "privacy.delta=1.0", "between 0 and 1"),
    bad("delta-2", "privacy.delta=2", "privacy.delta=2.0", "between 0 and 1"),
    bad("delta-nan", "privacy.delta=nan", "privacy.delta=nan", "between 0 and 1"),
    bad("fraction-0", "dataset.fraction=0", "dataset.fraction=0.0", "above 0, to 1"),
    bad("fraction-2", "dataset.fraction=2", "dataset.fraction=2.0", "above 0, to 1"),
    bad("fraction-of-a-batch", "method=dp_diffusion dataset.fraction=0.1", "method.batch_size=256", "1 to the 144"),
    bad("two-sample-rates", "method=dp_diffusion method.sample_rate=0.1", "method.batch_size=256", "null"),
    bad("no-sample-rate", "method=dp_diffusion method.batch_size=null", "method.batch_size=null", "method.sample_rate"),
    bad("sample-rate-2", "method=dp_diffusion method.batch_size=null method.sample_rate=2", "method.sample_rate=2.0", "to 1"),
    bad("epsilon-negative", "privacy.epsilon=-1", "privacy.epsilon=-1.0", "above 0"),
    bad("epsilon-0", "privacy.epsilon=0", "privacy.epsilon=0.0", "above 0"),
    bad("epsilon-nan", "privacy.epsilon=nan", "privacy.epsilon=nan", "above 0"),
    bad("epsilon-inf", "privacy.epsilon=inf", "privacy.epsilon=inf", "finite"),
    bad("sigma-0", "privacy.epsilon=null privacy.noise_multiplier=0", "privacy.noise_multiplier=0.0", "above 0"),
    bad("sigma-negative", "privacy.epsilon=null privacy.noise_multiplier=-2", "privacy.noise_multiplier=-2.0", "above 0"),
    bad("accountant", "privacy.accountant=foo", "privacy.accountant", "foo", "pld", "prv", "rdp"),
    bad("prv-discrete", "privacy.accountant=prv", "privacy.accountant=prv", "discrete_gaussian", "pld", "rdp"),
    bad("laplace-no-share", "dataset.class_counts=laplace", "privacy.class_counts_epsilon=null", "laplace"),
    bad(
        "laplace-over-budget",
        "dataset.class_counts=laplace privacy.class_counts_epsilon=5 privacy.epsilon=1 privacy.accountant=rdp",
        "privacy.epsilon=1.0",
        "class_counts",
    ),
    bad(
        "laplace-over-budget-public-only",
        "method=public_only dataset.class_counts=laplace privacy.class_counts_epsilon=5 privacy.epsilon=1",
        "privacy.epsilon=1.0",
        "class_counts",
    ),
    bad(
        "laplace-prv-public-only",
        "method=public_only dataset.class_counts=laplace privacy.class_counts_epsilon=1 privacy.accountant=prv",
        "privacy.accountant=prv",
        "discrete_laplace",
    ),
    bad("share-0", "privacy.class_counts_epsilon=0", "privacy.class_counts_epsilon=0.0", "1e-6 or more"),
    bad("class-counts", "dataset.class_counts=private", "dataset.class_counts", "private", "uniform", "public", "laplace"),
    # the method
    bad("iterations-0", "method.iterations=0", "method.iterations=0", "1 or more"),
    bad("samples-not-divisible", "method.num_samples=15", "method.num_samples=15", "divisible by 10"),
    bad("samples-below-classes", "method.num_samples=5", "method.num_samples=5", "10 classes"),
    bad("samples-below-classes-public", "method.num_samples=5 dataset.class_counts=public", "method.num_samples=5", "10 classes"),
    bad("samples-0", "method.num_samples=0 method.conditional=false", "method.num_samples=0", "at least one"),
    bad("degree-0", "method.iterations=1 method.variation_degrees=[0]", "method.variation_degrees=0", "1 to 20"),
    bad("degree-21", "method.iterations=1 method.variation_degrees=[21]", "method.variation_degrees=21", "1 to 20"),
    bad("degree-half", "method.iterations=1 method.variation_degrees=[1.5]", "method.variation_degrees=1.5", "whole number"),
    bad("degree-nan", "method.iterations=1 method.variation_degrees=[nan]", "method.variation_degrees=nan", "whole number"),
    bad("degree-inf", "method.iterations=1 method.variation_degrees=[inf]", "method.variation_degrees=inf", "whole number"),
    bad("schedule-short", "method.iterations=3 method.variation_degrees=[5,4]", "method.variation_degrees=[5", "iterations=3"),
    bad("schedule-long", "method.iterations=1 method.variation_degrees=[5,4]", "method.variation_degrees=[5", "iterations=1"),
    bad(
        "respacings-short",
        "method.iterations=2 method.variation_degrees=[5,4] method.respacings=['20']",
        "method.respacings=['20']",
        "iterations=2",
    ),
    bad(
        "respacings-bad",
        "method.iterations=1 method.variation_degrees=[5] method.respacings=[foo]",
        "method.respacings=foo",
        "ddimN",
    ),
    bad("lookahead", "method.lookahead=-1", "method.lookahead=-1", "0 (off) or more"),
    bad("threshold", "method.threshold=-1", "method.threshold=-1", "0 or more"),
    bad("expansions", "method.expansions=-1", "method.expansions=-1", "0 or more"),
    bad(
        "expansions-no-degree",
        "method.expansions=2 method.expansion_degree=null",
        "method.expansion_degree=null",
        "method.expansions=2",
    ),
    bad("expansion-degree", "method.expansions=2 method.expansion_degree=21", "method.expansion_degree=21", "1 to 20"),
    bad("noise", "method.noise=laplace", "method.noise", "laplace", "discrete_gaussian"),
    bad("public-only-samples", "method=public_only method.num_samples=15", "method.num_samples=15", "divisible by 10"),
    # the model, the device, the evaluation, the tracker
    bad("manifold-k", "eval.manifold.enabled=true eval.manifold.k=718", "eval.manifold.k=718", "below 718"),
    bad("manifold-few", "eval.manifold.enabled=true method.num_samples=10 eval.manifold.k=10", "eval.manifold.k=10", "below 10"),
    bad("class-score-splits", "eval=full eval.inception_score.splits=1438", "eval.inception_score.splits=1438", "to 1437"),
    bad(
        "kernel-few", "eval.kernel.enabled=true dataset.fraction=0.005 eval.kernel.reference=private", "eval.kernel", "4 samples"
    ),
    bad("pictures-rows", "eval.pictures.enabled=true eval.pictures.rows=0", "eval.pictures.rows=0", "1 or more"),
    bad("pictures-neighbours", "eval.pictures.enabled=true eval.pictures.neighbours=2000", "neighbours=2000", "1 to 1437"),
    bad("intrinsic-degree", "eval=full eval.intrinsic_dimension.degrees=[21]", "eval.intrinsic_dimension.degrees=21", "1 to 20"),
    bad("intrinsic-share", "eval=full eval.intrinsic_dimension.explained=0", "explained=0.0", "above 0"),
    bad("intrinsic-count", "eval=full eval.intrinsic_dimension.variations=1", "variations=1", "2 or more"),
    bad(
        "membership-embedding",
        "method=dp_diffusion dataset=mnist model=mnist_unet model.features=null "
        "eval.frechet.enabled=false eval.membership.enabled=true",
        "eval.membership.embedding=public_features",
        "pixels",
    ),
    bad("respacing-word", "model.respacing=foo", "model.respacing=foo", "ddimN"),
    bad("respacing-0", "model.respacing='0'", "model.respacing=0", "ddimN"),
    bad("respacing-stride", "model.respacing=ddim999", "model.respacing=ddim999", "stride"),
    bad("respacing-large", "model.respacing='1001'", "model.respacing=1001", "1000"),
    bad("weights-of-no-model", "method.noise=gaussian model.pretrained=null", "model.pretrained=null", "public weights"),
    bad(
        "features-of-no-model",
        "method.embedding=public_features model.features=null",
        "method.embedding=public_features",
        "pixels",
    ),
    bad(
        "features-to-evaluate",
        "method=dp_diffusion dataset=mnist model=mnist_unet model.features=null",
        "eval.frechet.embedding=public_features",
        "pixels",
    ),
    bad("features-of-the-evaluation", "eval.features=/nowhere", "eval.features=/nowhere", "features.safetensors"),
    bad("reference", "eval.frechet.reference=tset", "eval.frechet.reference=tset", "test"),
    bad("few-labels", "method=dp_diffusion model.pretrained=null model.labels=5 eval=none", "model.labels=5", "10"),
    bad("pretrained-folder", "model.pretrained=/nowhere", "model.pretrained=/nowhere", "unet/"),
    bad(
        "pretrained-of-other-shape",
        "method=public_only eval=none model.channels=[32,32]",
        "model.pretrained=digits",
        "[32, 64]",
        "(32, 32)",
    ),
    bad(
        "attention-level",
        "method=public_only eval=none model.pretrained=null model.attention_levels=[7]",
        "model.attention_levels=[7]",
        "0 to 1",
    ),
    bad("norm-groups", "method=public_only model.pretrained=null model.norm_groups=7 eval=none", "model.norm_groups=7", "divide"),
    bad("model-of-other-size", "method=dp_diffusion eval=none model=dpd_32", "model=dpd_32", "32×32×3", "8×8×1"),
    bad("guidance", "model.guidance=-1", "model.guidance=-1", "0 (off)"),
    bad("device", "device=tpu", "device=tpu", "auto, cpu, cuda"),
    bad("device-number", "method=public_only eval=none device=cpu:x", "device=cpu:x", "auto, cpu, cuda"),
    bad("device-auto-number", "method=public_only eval=none device=auto:1", "device=auto:1", "auto, cpu, cuda"),
    bad("seed", "seed=-1", "seed=-1", "0 to"),
    bad("eval-seeds", "eval.downstream.seeds=0", "eval.downstream.seeds=0", "1 or more"),
    bad("eval-steps", "eval.downstream.steps=0", "eval.downstream.steps=0", "1 or more"),
    bad("tracker-mode", "tracker.mode=foo", "tracker.mode=foo", "online, offline, disabled"),
    bad("tracker-name", "method=public_only eval=none tracker.name=wandbb", "tracker.name=wandbb", "wandb"),
    # the composition
    bad("unknown-dataset", "dataset=mnits", "dataset/mnits", "digits"),
    bad("unknown-method", "method=foo", "method/foo", "pe", "public_only", "real_data"),
    bad("unknown-experiment", "+experiment=foo", "experiment/foo", "smoke"),
    bad("unknown-group", "foo=bar", "foo", "dataset", "method"),
    bad("experiment-without-plus", "experiment=smoke", "+experiment=smoke"),
    bad("misspelt-key", "method.iteratons=3", "method.iteratons", "iterations"),
    bad("misspelt-top-key", "sede=3", "sede", "seed"),
    bad("misspelt-added-key", "+method.iteratons=3", "method.iteratons", "iterations"),
    bad("key-of-another-method", "method=public_only method.iterations=3", "method.iterations", "num_samples"),
    bad("wrong-type-int", "method.iterations=abc", "method.iterations", "abc", "Integer"),
    bad("wrong-type-fraction", "method.iterations=2.5", "method.iterations", "2.5", "Integer"),
    bad("wrong-type-float", "privacy.epsilon=abc", "privacy.epsilon", "abc", "Float"),
    bad("wrong-type-list", "method.variation_degrees=5", "method.variation_degrees", "list"),
    bad("wrong-type-item", "method.variation_degrees=[a]", "method.variation_degrees", "a", "Float"),
    bad("missing-value", "dataset.name=???", "dataset.name"),
    bad("interpolation", "method.num_samples=${foo}", "method.num_samples", "foo"),
    bad("broken-syntax", "method.variation_degrees=[1,", "[1,"),
    bad("sweep-without-m", "seed=0,1", "seed", "0,1", "--multirun"),
]


def said_in_one_line(result: Result, *words: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert "None" not in result.err  # users write null
    assert "provider=" not in result.err  # where Hydra searched says nothing to them
    for word in words:
        assert word in result.err


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("overrides", "words"), BAD)
def test_bad_input_is_refused_in_one_line_that_says_what_is_wrong(here, monkeypatch, overrides, words):
    monkeypatch.setattr(NoiseSource, "for_run", lambda *_: pytest.fail("accepted"))
    said_in_one_line(call(*overrides), *words)
    assert contents(here) == {}


def test_a_sweep_with_bad_input_is_refused_in_one_line(here):
    said_in_one_line(call("-m", "hydra.sweep.dir=sweep", "method.iterations=0"), "method.iterations=0", "1 or more")
    assert not list(here.glob("sweep/*/*"))


# Where a run is written


def test_a_folder_with_a_finished_run_is_refused_and_untouched(here):
    (here / "run" / "internal").mkdir(parents=True)
    (here / "run" / "internal" / "metrics.json").write_text("{}")
    before = contents(here)
    said_in_one_line(call(*NOISE), "hydra.run.dir=", "run", "finished run", "another directory")
    assert contents(here) == before


def test_a_folder_that_holds_something_else_is_refused_and_untouched(here):
    (here / "run").mkdir()
    (here / "run" / "thesis.tex").write_text("all my work")
    before = contents(here)
    said_in_one_line(call(*NOISE), "hydra.run.dir=", "run", "holds no run", "another directory")
    assert contents(here) == before


def test_a_file_in_the_place_of_the_folder_is_refused_and_untouched(here):
    (here / "run").write_text("a file")
    said_in_one_line(call(*NOISE), "hydra.run.dir", "run")
    assert (here / "run").read_text() == "a file"


def test_a_refused_run_leaves_the_folders_that_the_user_made(here):
    (here / "mine").mkdir()
    said_in_one_line(call("hydra.run.dir=mine/run", "seed=-1"), "seed=-1")
    assert contents(here) == {"mine": None}


@pytest.fixture(scope="module")
def broken_run(tmp_path_factory) -> Path:
    """The folder of a run that broke when its method started."""

    def broken(*_):
        raise ConnectionError("the power went")

    folder = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrivateEvolution, "run", broken)
        with pytest.raises(ConnectionError):
            call(*SETTINGS, f"hydra.run.dir={folder}/run")
    return folder / "run"


@pytest.fixture
def unfinished(here, broken_run) -> Path:
    return shutil.copytree(broken_run, here / "run")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        bad("sigma", "privacy.noise_multiplier=3", "privacy.noise_multiplier", "2.0 before", "3.0 now"),
        bad("delta", "privacy.delta=1e-6", "privacy.delta", "null before", "1e-06 now"),
        bad("target", "privacy.epsilon=5 privacy.noise_multiplier=null", "privacy.epsilon", "null before", "5.0 now"),
        bad("noise-seed", "privacy.noise_seed=1", "privacy.noise_seed", "null before", "1 now"),
        bad("rounds", "method.iterations=1 method.variation_degrees=[2]", "method.iterations", "2 before", "1 now"),
        bad("degrees", "method.variation_degrees=[3,1]", "method.variation_degrees", "[2.0, 1.0] before", "[3.0, 1.0] now"),
        bad("dataset", "dataset.class_counts=public", "dataset.class_counts", "uniform before", "public now"),
        bad("method", "method=public_only", "method."),
        bad("model", "model.guidance=1", "model.guidance", "0.0 before", "1.0 now"),
        bad("seed", "seed=1", "seed", "0 before", "1 now"),
    ],
)
def test_an_unfinished_run_goes_on_with_the_same_settings_only(unfinished, changed, words):
    before = contents(unfinished)
    settings = RUN if changed == ["method=public_only"] else SETTINGS
    said_in_one_line(call(*settings, *changed), "hydra.run.dir=", "other settings", *words)
    assert contents(unfinished) == before


def test_an_unfinished_run_may_go_on_with_another_evaluation(unfinished):
    assert call(*SETTINGS, "eval=default", "eval.downstream.enabled=false", "eval.frechet.embedding=pixels").code == 0
    assert (unfinished / "internal" / "metrics.json").exists()


def test_spends_without_their_noise_key_are_refused(unfinished):
    """A fresh key would be fresh noise on the same votes: a second spend that the ledger does not show."""
    entry = '{"purpose": "pe.votes/round=1", "mechanism": "gaussian", "noise_multiplier": 2.0}\n'
    (unfinished / "internal" / "ledger.jsonl").write_text(entry)
    (unfinished / "internal" / "noise.key").unlink()
    said_in_one_line(call(*SETTINGS), "hydra.run.dir=", "noise.key", "new run")
    assert not (unfinished / "internal" / "noise.key").exists()
