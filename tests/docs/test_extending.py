"""The examples of docs/extending.md run as they stand there."""

from __future__ import annotations

import copy
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.config_store import ConfigStore

from conf import compose
from conf.compose import from_stored
from conf.schema import COMPONENTS, add
from data.samples import SampleSet
from pipeline import run
from pipeline.plan import Plan
from pipeline.plan_document import plan_document
from run import cli
from store.identity import digest, plain
from tests.rejects import rejects
from tests.scripts.test_audit import audited

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
SMALL = {
    "class_means": ["method.num_samples=20"],
    "bars": ["+experiment=smoke", "method.variation_degrees=[6,4]", "eval.downstream.enabled=false"],
    "scans": ["method=class_means", "eval=none"],
    "contrast": ["+experiment=smoke", "eval.frechet.enabled=false"],
}


@pytest.fixture(autouse=True)
def registered(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Every example is a module, which composing registers; afterwards none is."""
    store = ConfigStore.instance()
    components, repository = {group: dict(options) for group, options in COMPONENTS.items()}, copy.copy(store.repo)
    for group in COMPONENTS:
        store.repo[group] = dict(store.repo.get(group, {}))
    monkeypatch.syspath_prepend(here)
    for name, code in BLOCKS.items():
        Path(f"{name}.py").write_text(code)
    monkeypatch.setenv("DP_SYNTHESIS_EXTENSIONS", ",".join(BLOCKS))
    yield
    store.repo = repository
    COMPONENTS.update(components)
    for name in BLOCKS:
        sys.modules.pop(name, None)


def overrides_of(name: str) -> list[str]:
    """The overrides of the last command that the page gives for a file."""
    return shlex.split(re.findall(rf"    DP_SYNTHESIS_EXTENSIONS={name} python run\.py (.*)", PAGE)[-1])


def two_classes(count: int, bright: float) -> SampleSet:
    labels = np.arange(count) % 2
    images = np.where(labels[:, None, None, None] == 1, bright, 0) + np.random.default_rng(0).integers(0, 50, (count, 8, 8, 1))
    return SampleSet(images.astype(np.uint8), labels.astype(np.int64), 2)


def scans(folder: Path) -> Path:
    folder.mkdir()
    two_classes(400, bright=200).save(folder / "train.npz")
    two_classes(100, bright=200).save(folder / "test.npz")
    return folder


def test_there_is_an_example_of_each_kind():
    assert set(BLOCKS) == set(SMALL)
    method = next(code for name, code in BLOCKS.items() if name == "class_means")
    assert len(method.split('add("method"')[0].strip().splitlines()) < 40


@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs_by_the_command_that_stands_below_it(name: str, here: Path):
    scans(here / "my_scans")
    result = run(compose([*overrides_of(name), *SMALL[name]]), here / "out")
    assert result is not None
    assert result.certificate["private"]
    assert 0 < result.certificate["epsilon"] <= 10
    assert len(result.samples) > 0
    assert (result.path / "release" / "privacy.json").is_file()


def test_the_methods_release_is_near_the_means_of_the_private_classes(here: Path):
    overrides = ["dataset=scans", f"dataset.path={scans(here / 'few')}", "method=class_means", "eval=none", "method.clip_norm=8"]
    result = run(compose([*overrides, "privacy.epsilon=100", "method.num_samples=200"]), here / "out")
    assert result is not None
    means = [result.samples.images[result.samples.labels == label].mean() for label in (0, 1)]
    assert means[1] - means[0] > 100
    assert [spend["purpose"] for spend in result.certificate["mechanisms"]] == ["class_means.sums"]


def test_the_method_goes_on_with_an_answer_that_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch):
    config = compose([*overrides_of("class_means"), *SMALL["class_means"]])
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.running.publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, here / "out")
    assert not (here / "out" / "release").exists()
    result = run(config, here / "out")
    assert result is not None
    assert result.certificate["mechanisms"][0]["count"] == 1


@pytest.mark.parametrize("clips", [True, False])
def test_an_attack_on_the_method_finds_out_whether_it_clips(clips: bool, here: Path):
    """The command of the page, with fewer repetitions and a claim that is there without a search."""
    assert "    DP_SYNTHESIS_EXTENSIONS=class_means python -m scripts.audit method=class_means repetitions=1000\n" in PAGE
    lines = BLOCKS["class_means"].splitlines(keepends=True)
    kept = [line for line in lines if clips or "np.maximum" not in line]
    assert len(lines) - len(kept) == (not clips)
    Path("class_means.py").write_text("".join(kept))
    fixed = ["privacy.epsilon=null", "privacy.noise_multiplier=3", "privacy.accountant=rdp", "device=cpu"]
    report = audited("method=class_means", "method.clip_norm=0.5", "repetitions=160", *fixed)
    assert (report["method"], report["refuted"]) == ("class_means", not clips)


@pytest.mark.parametrize("name", SMALL)
def test_the_command_as_it_stands_has_a_plan(name: str, here: Path):
    config = compose(overrides_of(name))
    config.check()
    assert plan_document(Plan.of(config), config)["privacy"]["epsilon"] <= 10


def test_the_evaluators_numbers_are_internal(here: Path):
    result = run(compose([*overrides_of("contrast"), *SMALL["contrast"]]), here / "out")
    assert result is not None
    assert result.metrics.keys() > {"contrast/train", "contrast/samples"}
    assert "contrast/train" not in str(result.certificate)


def test_a_yaml_file_names_values_of_a_component():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert yaml.safe_load(text) == {"defaults": ["/schema/method/class_means@_here_", "_self_"], "clip_norm": 2.0}


def test_an_option_that_is_there_is_not_replaced():
    with pytest.raises(ValueError, match="method=pe"):
        add("method", "pe", COMPONENTS["method"]["dp_loda"])
    with pytest.raises(ValueError, match="group=methods"):
        add("methods", "mine", COMPONENTS["method"]["pe"])


def test_an_extension_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DP_SYNTHESIS_EXTENSIONS", "no_such_module")
    with rejects("DP_SYNTHESIS_EXTENSIONS", "no_such_module"):
        compose()


def test_help_lists_what_extensions_add_in_their_groups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["run.py", "--help"])
    assert cli() == 0
    told = capsys.readouterr().out
    groups = dict(re.findall(r"^  (\w+)\n((?:   .*\n)*)", told, re.MULTILINE))
    for option in BLOCKS:
        group, name = re.findall(r'add\("(\w+)", "(\w+)"', BLOCKS[option])[0]
        assert re.findall(rf"^     {name} +(.+)$", groups[group], re.MULTILINE), (group, name)
    assert len(re.findall(r"^   [* ] pe ", told, re.MULTILINE)) == 2  # a method, and an evaluation: each once
    monkeypatch.setenv("DP_SYNTHESIS_EXTENSIONS", "no_such_module")
    assert cli() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stored_run_of_an_extension_is_read_back_as_itself(here: Path):
    config = compose([*overrides_of("scans"), "method=class_means"])
    again = from_stored(plain(config))
    assert (type(again.dataset), type(again.method)) == (type(config.dataset), type(config.method))
    assert digest(again) == digest(config)
