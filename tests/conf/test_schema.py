"""Every option of every group composes into checked objects, and every experiment has a plan."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from omegaconf import OmegaConf

import run
from conf.compose import CONFIG_DIR, compose_script
from conf.schema import COMPONENTS
from models.classifiers.networks import ClassifierName
from pipeline.config import Config
from pipeline.plan import Plan
from pipeline.plan_document import plan_document
from scripts.evaluate import Judging
from tests.command import composed, typed
from tests.data.test_folder import class_folders
from tests.sheets import SHEETS

CONF = Path(CONFIG_DIR)
FILES = [path.relative_to(CONF).with_suffix("").as_posix() for path in sorted(CONF.glob("*/**/*.yaml"))]
OWN = ("pretraining/", "grid/", "auditing/", "table/", "figure/")  # of scripts, not of run.py
OPTIONS = [file for file in FILES if not file.startswith(OWN)]
EXPERIMENTS = [option.removeprefix("experiment/") for option in OPTIONS if option.startswith("experiment/")]
CHOICES = [tuple(option.split("/", 1)) for option in OPTIONS if option.split("/")[0] in COMPONENTS]

choices = pytest.mark.parametrize(("group", "option"), CHOICES)
# Planned by tests/scripts/paper/test_experiments.py.
ROWS = {name for sheet in SHEETS for name in sheet.experiments}
OURS = ("digits/", "mnist/", "pneumonia/")  # tables of no paper
experiments = pytest.mark.parametrize("name", EXPERIMENTS)


def test_the_defaults_are_private_evolution_on_the_embedded_digits():
    config = typed()
    assert (config.method.name, config.dataset.name, config.eval.frechet.enabled) == ("pe", "digits", True)
    assert config.privacy.noise_seed is None
    assert config.privacy.accountant.value == "pld"
    assert config.delta < 1 / config.dataset.num_private


@pytest.fixture(scope="module")
def own_images(tmp_path_factory) -> Path:
    return class_folders(tmp_path_factory.mktemp("own"), 40)


def test_images_of_one_s_own_are_judged_alike_by_a_run_and_by_the_command(own_images):
    images = ["dataset=folder", f"dataset.path={own_images}", "dataset.image_size=8"]
    by_run, by_command = composed(*images), compose_script("evaluate", Judging, [*images, "release=release"])
    assert by_command.eval == by_run.eval
    assert by_command.model == by_run.model
    assert by_run.eval.downstream.classifier is ClassifierName.lenet


def component(group: str, option: str, own_images: Path) -> tuple[Any, Config]:
    """One option as an object, and the configuration around it, which need not fit it."""
    needed = {
        "folder": [f"dataset.path={own_images}", "dataset.image_size=8"],
        "cats": [f"dataset.path={own_images}"],
        "cinic10": [f"dataset.path={own_images}"],
        "callable": ["model.factory=my_module:MyAPI", "model.image_size=8"],
    }
    config = cast(
        Config, OmegaConf.to_object(composed(f"{'+' * (group == 'selection')}{group}={option}", *needed.get(option, [])))
    )
    return getattr(config, group), config


@choices
def test_every_option_composes_and_passes_its_check(group, option, own_images):
    chosen, config = component(group, option, own_images)
    assert type(chosen) in COMPONENTS[group].values()
    match group:
        case "model":
            chosen.check(Mock(shape=chosen.image_shape))
        case "method":
            chosen.check(config.dataset, config.model, config.privacy)
        case "eval":
            chosen.check(config.dataset, config.model)
        case _:
            chosen.check()


@choices
def test_an_option_carries_its_own_name(group, option, own_images):
    parts = {"mnist_50k": "mnist", "camelyon17_32": "camelyon17", "medmnist": "pneumoniamnist"}  # or one of several
    name = getattr(component(group, option, own_images)[0], "name", option)
    assert getattr(name, "value", name) == parts.get(option, option)


@pytest.mark.parametrize("option", [option.removeprefix("adapter/") for option in OPTIONS if option.startswith("adapter/")])
def test_an_adapter_is_chosen_with_its_learning_rate(option):
    method: Any = typed("method=dp_loda", f"+adapter={option}").method
    assert method.adapter.value == option
    assert method.learning_rate > 0


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in ROWS])
def test_every_experiment_composes_and_plans(name, own_images, like_cifar10, tmp_path):
    test_images = shutil.copy(like_cifar10, tmp_path / "test.npz")
    places = {  # the number of the user's own files is a public fact
        "pe/cats": [f"dataset.path={own_images}"],
        "pe/cifar10_small": [f"dataset.path={like_cifar10}", f"dataset.test_path={test_images}"],
        "dp_diffusion/cifar10_small": [f"dataset.path={like_cifar10}", f"dataset.test_path={test_images}"],
    }
    config = typed(f"+experiment={name}", *places.get(name, []))
    plan = Plan.make(config.method, config.dataset, config.privacy)
    document = plan_document(plan, config)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    unbounded = config.method.name == "real_data" or config.privacy.epsilon is None
    assert unbounded or plan.epsilon <= (config.privacy.epsilon or 0)
    assert config.privacy.noise_seed is None  # a preset never gives the guarantee away


@pytest.mark.parametrize("option", FILES)
def test_every_file_says_what_it_is_and_holds_values_only(option):
    text = (CONF / f"{option}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("# ") and "@package" not in line]
    assert comments
    assert "_target_" not in text


@experiments
def test_every_experiment_tells_purpose_cost_and_command(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    for word in ("Purpose:", "Cost:", f"python run.py +experiment={name}"):
        assert word in text


@pytest.mark.parametrize("name", sorted(name for name in ROWS if not name.startswith(OURS)))
def test_a_row_of_a_paper_tells_what_the_paper_prints(name):
    header = [line for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines() if line.startswith("# ")]
    assert re.search(r"Published\b[^:]*: (not printed|none|.*\d)", "\n".join(header))


@pytest.mark.parametrize(
    "key",
    [
        "privacy.epsilon", "privacy.delta", "privacy.noise_multiplier", "privacy.accountant", "privacy.noise_seed",
        "method.iterations", "method.num_samples", "method.lookahead", "method.threshold", "method.variation_degrees",
        "method.conditional", "seed", "device", "tracker", "plan_only",
    ],
)  # fmt: skip
def test_users_find_the_main_keys(key):
    missing = object()
    assert OmegaConf.select(composed(), key, default=missing) is not missing


def test_a_setting_of_the_command_line_reaches_the_object():
    config = typed("privacy.epsilon=null", "privacy.noise_multiplier=2", "method.noise=gaussian", "seed=7")
    assert config.privacy.noise_multiplier == 2.0
    assert config.method.noise.value == "gaussian"  # type: ignore[attr-defined]
    assert config.seed == 7


def test_help_lists_every_group_and_option_and_exits_with_success(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "--help"])
    assert run.cli() == 0
    words = capsys.readouterr().out.split()
    assert {option.split("/", 1)[1] for option in OPTIONS} <= set(words)
    assert {option.split("/", 1)[0] for option in OPTIONS} - {"experiment", "adapter", "scale", "selection"} <= set(words)
    assert {"+experiment", "+adapter", "+scale", "+selection"} <= set(words)


def test_help_marks_the_defaults(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "--help"])
    run.cli()
    marked = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("   * ")]
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))["defaults"]  # type: ignore[index,call-overload]
    chosen = [option for entry in defaults if isinstance(entry, dict) for option in entry.values() if option != "none"]
    assert chosen[-1] == "${dataset}/${model}/${method}"
    dataset, method, model = chosen[:3]
    assert marked == [*chosen[:-1], f"{dataset}/{model}/{method}"]
