"""Bad input: exit status 2 and one line that names the key, the value and what is allowed; nothing else is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pe.evolution import PrivateEvolution
from privacy.noise import NoiseSource
from tests.command import Result, call
from tests.rejects import assert_refused

NOISE = ["privacy.epsilon=null", "privacy.noise_multiplier=2"]  # no search for a noise multiplier: quick to plan
RUN = [*NOISE, "method.num_samples=10", "eval=none", "device=cpu"]
SETTINGS = [*RUN, "method.noise=gaussian", "method.iterations=2", "method.variation_degrees=[2,1]", "method.expansions=0"]


def bad(name: str, overrides: str, *words: str):
    return pytest.param(overrides.split(), words, id=name)


BAD = [
    bad("new-labels-as-they-are", "method=public_only model.new_labels=true", "model.new_labels=true"),
    bad("keep-unknown", "dataset.keep_classes=[cat]", "dataset.keep_classes=['cat']"),
    # the budget
    bad("epsilon-and-sigma", "privacy.noise_multiplier=1", "privacy.epsilon=10.0", "privacy.noise_multiplier=1.0"),
    bad("no-epsilon-no-sigma", "privacy.epsilon=null", "privacy.epsilon=null", "privacy.noise_multiplier=null"),
    bad("delta-0", "privacy.delta=0", "privacy.delta=0.0"),
    bad("delta-1", "privacy.delta=1", "privacy.delta=1.0"),
    bad("delta-2", "privacy.delta=2", "privacy.delta=2.0"),
    bad("delta-nan", "privacy.delta=nan", "privacy.delta=nan"),
    bad("fraction-0", "dataset.fraction=0", "dataset.fraction=0.0"),
    bad("fraction-2", "dataset.fraction=2", "dataset.fraction=2.0"),
    bad("fraction-of-a-batch", "method=dp_diffusion dataset.fraction=0.1", "method.batch_size=256", "144"),
    bad("two-sample-rates", "method=dp_diffusion method.sample_rate=0.1", "method.batch_size=256", "method.sample_rate"),
    bad("no-sample-rate", "method=dp_diffusion method.batch_size=null", "method.batch_size=null"),
    bad("sample-rate-2", "method=dp_diffusion method.batch_size=null method.sample_rate=2", "method.sample_rate=2.0"),
    bad("epsilon-negative", "privacy.epsilon=-1", "privacy.epsilon=-1.0"),
    bad("epsilon-0", "privacy.epsilon=0", "privacy.epsilon=0.0"),
    bad("epsilon-nan", "privacy.epsilon=nan", "privacy.epsilon=nan"),
    bad("epsilon-inf", "privacy.epsilon=inf", "privacy.epsilon=inf"),
    bad("sigma-0", "privacy.epsilon=null privacy.noise_multiplier=0", "privacy.noise_multiplier=0.0"),
    bad("sigma-negative", "privacy.epsilon=null privacy.noise_multiplier=-2", "privacy.noise_multiplier=-2.0"),
    bad("accountant", "privacy.accountant=foo", "privacy.accountant", "foo", "pld", "prv", "rdp"),
    bad("prv-discrete", "privacy.accountant=prv", "privacy.accountant=prv", "discrete_gaussian", "pld", "rdp"),
    bad("laplace-no-share", "dataset.class_counts=laplace", "privacy.class_counts_epsilon=null"),
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
    bad("share-0", "privacy.class_counts_epsilon=0", "privacy.class_counts_epsilon=0.0"),
    bad("class-counts", "dataset.class_counts=private", "dataset.class_counts", "private", "uniform", "public", "laplace"),
    # the method
    bad("iterations-0", "method.iterations=0", "method.iterations=0"),
    bad("samples-not-divisible", "method.num_samples=15", "method.num_samples=15"),
    bad("samples-below-classes", "method.num_samples=5", "method.num_samples=5"),
    bad("samples-below-classes-public", "method.num_samples=5 dataset.class_counts=public", "method.num_samples=5"),
    bad("samples-0", "method.num_samples=0 method.conditional=false", "method.num_samples=0"),
    bad("degree-0", "method.iterations=1 method.variation_degrees=[0]", "method.variation_degrees=0.0"),
    bad("degree-21", "method.iterations=1 method.variation_degrees=[21]", "method.variation_degrees=21.0"),
    bad("degree-half", "method.iterations=1 method.variation_degrees=[1.5]", "method.variation_degrees=1.5"),
    bad("degree-nan", "method.iterations=1 method.variation_degrees=[nan]", "method.variation_degrees=nan"),
    bad("degree-inf", "method.iterations=1 method.variation_degrees=[inf]", "method.variation_degrees=inf"),
    bad(
        "schedule-short",
        "method.iterations=3 method.variation_degrees=[5,4]",
        "method.variation_degrees=[5.0, 4.0]",
        "iterations=3",
    ),
    bad(
        "schedule-long",
        "method.iterations=1 method.variation_degrees=[5,4]",
        "method.variation_degrees=[5.0, 4.0]",
        "iterations=1",
    ),
    bad(
        "respacings-short",
        "method.iterations=2 method.variation_degrees=[5,4] method.respacings=['20']",
        "method.respacings=['20']",
        "iterations=2",
    ),
    bad("respacings-bad", "method.iterations=1 method.variation_degrees=[5] method.respacings=[foo]", "method.respacings=foo"),
    bad("lookahead", "method.lookahead=-1", "method.lookahead=-1"),
    bad("threshold", "method.threshold=-1", "method.threshold=-1.0"),
    bad("expansions", "method.expansions=-1", "method.expansions=-1"),
    bad(
        "expansions-no-degree",
        "method.expansions=2 method.expansion_degree=null",
        "method.expansion_degree=null",
        "method.expansions=2",
    ),
    bad("expansion-degree", "method.expansions=2 method.expansion_degree=21", "method.expansion_degree=21.0"),
    bad("noise", "method.noise=laplace", "method.noise", "laplace", "discrete_gaussian"),
    bad("public-only-samples", "method=public_only method.num_samples=15", "method.num_samples=15"),
    # the model, the device, the evaluation, the tracker
    bad("manifold-k", "eval.manifold.enabled=true eval.manifold.k=718", "eval.manifold.k=718"),
    bad("manifold-few", "eval.manifold.enabled=true method.num_samples=10 eval.manifold.k=10", "eval.manifold.k=10"),
    bad("class-score-splits", "eval=full eval.inception_score.splits=1438", "eval.inception_score.splits=1438"),
    bad(
        "kernel-few", "eval.kernel.enabled=true dataset.fraction=0.005 eval.kernel.reference=private", "eval.kernel.enabled=true"
    ),
    bad("pictures-rows", "eval.pictures.enabled=true eval.pictures.rows=0", "eval.pictures.rows=0"),
    bad("pictures-neighbours", "eval.pictures.enabled=true eval.pictures.neighbours=2000", "eval.pictures.neighbours=2000"),
    bad("intrinsic-degree", "eval=full eval.intrinsic_dimension.degrees=[21]", "eval.intrinsic_dimension.degrees=21.0"),
    bad("intrinsic-share", "eval=full eval.intrinsic_dimension.explained=0", "eval.intrinsic_dimension.explained=0.0"),
    bad("intrinsic-count", "eval=full eval.intrinsic_dimension.variations=1", "eval.intrinsic_dimension.variations=1"),
    bad(
        "membership-embedding",
        "method=dp_diffusion dataset=mnist model=mnist_unet model.features=null "
        "eval.frechet.enabled=false eval.membership.enabled=true",
        "eval.membership.embedding=public_features",
        "pixels",
    ),
    bad("respacing-word", "model.respacing=foo", "model.respacing=foo"),
    bad("respacing-0", "model.respacing='0'", "model.respacing=0"),
    bad("respacing-stride", "model.respacing=ddim999", "model.respacing=ddim999"),
    bad("respacing-large", "model.respacing='1001'", "model.respacing=1001"),
    bad("weights-of-no-model", "method.noise=gaussian model.pretrained=null", "model.pretrained=null"),
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
    bad("reference", "eval.frechet.reference=tset", "eval.frechet.reference=tset"),
    bad("few-labels", "method=dp_diffusion model.pretrained=null model.labels=5 eval=none", "model.labels=5"),
    bad("pretrained-folder", "model.pretrained=/nowhere", "model.pretrained=/nowhere"),
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
    ),
    bad("norm-groups", "method=public_only model.pretrained=null model.norm_groups=7 eval=none", "model.norm_groups=7"),
    bad("model-of-other-size", "method=dp_diffusion eval=none model=dpd_32", "model=dpd_32", "32×32×3", "8×8×1"),
    bad("guidance", "model.guidance=-1", "model.guidance=-1.0"),
    bad("device", "device=tpu", "device=tpu", "auto, cpu, cuda"),
    bad("device-number", "method=public_only eval=none device=cpu:x", "device=cpu:x", "auto, cpu, cuda"),
    bad("device-auto-number", "method=public_only eval=none device=auto:1", "device=auto:1", "auto, cpu, cuda"),
    bad("seed", "seed=-1", "seed=-1"),
    bad("eval-seeds", "eval.downstream.seeds=0", "eval.downstream.seeds=0"),
    bad("eval-steps", "eval.downstream.steps=0", "eval.downstream.steps=0"),
    bad("tracker-mode", "tracker.mode=foo", "tracker.mode=foo", "online, offline, disabled"),
    bad("tracker-name", "method=public_only eval=none tracker.name=wandbb", "tracker.name", "wandb"),
    # the composition
    bad("unknown-dataset", "dataset=mnits", "dataset/mnits", "digits"),
    bad("unknown-method", "method=foo", "method/foo", "pe", "public_only", "real_data"),
    bad("unknown-experiment", "+experiment=foo", "experiment/foo", "smoke"),
    bad("unknown-group", "foo=bar", "foo", "dataset", "method"),
    bad("experiment-without-plus", "experiment=smoke", "experiment", "+experiment=smoke"),
    bad("misspelt-key", "method.iteratons=3", "method.iteratons", "iterations"),
    bad("misspelt-top-key", "sede=3", "sede", "seed"),
    bad("misspelt-added-key", "+method.iteratons=3", "method.iteratons", "iterations"),
    bad("key-of-another-method", "method=public_only method.iterations=3", "method.iterations", "num_samples"),
    bad("wrong-type-int", "method.iterations=abc", "method.iterations", "abc", "a whole number"),
    bad("wrong-type-fraction", "method.iterations=2.5", "method.iterations", "2.5", "a whole number"),
    bad("wrong-type-float", "privacy.epsilon=abc", "privacy.epsilon", "abc", "a number"),
    bad("wrong-type-list", "method.variation_degrees=5", "method.variation_degrees", "list"),
    bad("wrong-type-item", "method.variation_degrees=[a]", "method.variation_degrees", "a", "a number"),
    bad("missing-value", "dataset.name=???", "dataset.name"),
    bad("interpolation", "method.num_samples=${foo}", "method.num_samples", "foo"),
    bad("broken-syntax", "method.variation_degrees=[1,", "[1,"),
    bad("sweep-without-m", "seed=0,1", "seed", "0,1", "--multirun"),
]


def assert_told_in_one_line(result: Result, setting: str, *words: str) -> None:
    assert_refused(result, setting, *words)
    assert "None" not in result.err  # users write null
    assert "provider=" not in result.err  # where Hydra searched says nothing to them


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("overrides", "words"), BAD)
def test_bad_input_is_refused_in_one_line_that_says_what_is_wrong(here, monkeypatch, overrides, words):
    monkeypatch.setattr(NoiseSource, "for_run", lambda *_: pytest.fail("accepted"))
    assert_told_in_one_line(call(*overrides), *words)
    assert contents(here) == {}


def test_a_sweep_with_bad_input_is_refused_in_one_line(here):
    assert_told_in_one_line(call("-m", "hydra.sweep.dir=sweep", "method.iterations=0"), "method.iterations=0")
    assert not list(here.glob("sweep/*/*"))


# Where a run is written


def test_a_folder_with_a_finished_run_is_refused_and_untouched(here):
    (here / "run" / "internal").mkdir(parents=True)
    (here / "run" / "internal" / "metrics.json").write_text("{}")
    before = contents(here)
    assert_told_in_one_line(call(*NOISE), f"hydra.run.dir={here}/run", "finished run")
    assert contents(here) == before


def test_a_folder_that_holds_something_else_is_refused_and_untouched(here):
    (here / "run").mkdir()
    (here / "run" / "thesis.tex").write_text("all my work")
    before = contents(here)
    assert_told_in_one_line(call(*NOISE), f"hydra.run.dir={here}/run", "no run")
    assert contents(here) == before


def test_a_file_in_the_place_of_the_folder_is_refused_and_untouched(here):
    (here / "run").write_text("a file")
    assert_told_in_one_line(call(*NOISE), "hydra.run.dir=run", "a file")
    assert (here / "run").read_text() == "a file"


def test_a_refused_run_leaves_the_folders_that_the_user_made(here):
    (here / "mine").mkdir()
    assert_told_in_one_line(call("hydra.run.dir=mine/run", "seed=-1"), "seed=-1")
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
    assert_told_in_one_line(call(*settings, *changed), f"hydra.run.dir={unfinished}", "other settings", *words)
    assert contents(unfinished) == before


def test_an_unfinished_run_may_go_on_with_another_evaluation(unfinished):
    assert call(*SETTINGS, "eval=default", "eval.downstream.enabled=false", "eval.frechet.embedding=pixels").code == 0
    assert (unfinished / "internal" / "metrics.json").exists()


def test_spends_without_their_noise_key_are_refused(unfinished):
    """A fresh key would be fresh noise on the same votes: a second spend that the ledger does not show."""
    entry = '{"purpose": "pe.votes/round=1", "mechanism": "gaussian", "noise_multiplier": 2.0}\n'
    (unfinished / "internal" / "ledger.jsonl").write_text(entry)
    (unfinished / "internal" / "noise.key").unlink()
    assert_told_in_one_line(call(*SETTINGS), f"hydra.run.dir={unfinished}", "noise.key")
    assert not (unfinished / "internal" / "noise.key").exists()
