"""Commands in the documents: what they name is there. `make docs-check` runs the worked example as it is written."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import pytest

from conf import compose
from conf.compose import CONFIG_DIR, compose_config
from pipeline.config import Config
from tests.command import ROOT
from tests.data.test_folder import class_folders

SITE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in SITE if page.name != "extending.md"),
]  # test_extending.py
PYTHON = re.compile(r"^(?:\.venv/bin/)?(?:python|torchrun(?: --[\w-]+=\S+)+) ")
MAKE = (ROOT / "Makefile").read_text()


def commands(page: Path) -> list[str]:
    """Of the indented blocks, without comments; a backslash joins lines."""
    text = re.sub(r" *\\\n +", " ", page.read_text())
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [re.split(r"\s+#", line)[0].strip() for line in lines if PYTHON.match(line) or line.startswith("make ")]


EVERY = [(page.name, command) for page in PAGES for command in commands(page)]
RUNS = [(page, command) for page, command in EVERY if " run.py" in command and "…" not in command and "--help" not in command]
SCRIPTS = [(page, command) for page, command in EVERY if " -m scripts." in command]
TARGETS = [(page, command) for page, command in EVERY if command.startswith("make ")]


def test_the_pages_hold_commands_in_indented_blocks_alone():
    assert min(map(len, (RUNS, SCRIPTS, TARGETS))) >= 10
    for page in PAGES:
        assert [line for line in page.read_text().splitlines() if PYTHON.match(line)] == []


@pytest.fixture
def own(here):
    """The folders of images that the pages speak of."""
    for name in ("my_images", "xrays", "public_images"):
        class_folders(here / name, 4)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("page", "command"), RUNS)
def test_a_run_composes(page, command):
    words = shlex.split(command)
    overrides = [word for word in words[words.index("run.py") + 1 :] if not word.startswith(("-", "hydra"))]
    overrides = [word for word in overrides if word != "job"]
    if "-m" in words:  # a sweep: its first job
        overrides = [word if "[" in word else re.split(r",(?![^{]*})", word)[0] for word in overrides]
    compose(overrides)


@pytest.mark.parametrize("command", sorted({command for _, command in RUNS if " hydra/launcher=" in command}))
def test_a_launcher_knows_its_settings(command):
    given = [word for word in shlex.split(command) if word.startswith(("hydra/launcher=", "hydra.launcher."))]
    launcher = compose_config(given, with_hydra=True).hydra.launcher
    for key, value in (word.split("=") for word in given if word.startswith("hydra.launcher.")):
        assert str(launcher[key.rpartition(".")[2]]) == value


@pytest.mark.parametrize(("page", "command"), SCRIPTS)
def test_a_script_is_there_and_knows_its_keys(page, command):
    words = shlex.split(command.replace("'…'", "…"))
    name = words[words.index("-m") + 1]
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    known = {
        field.name
        for cls in vars(module).values()
        if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls.__module__ == module.__name__
        for field in dataclasses.fields(cls)
    }
    given = words[words.index(name) + 1 :]
    if not known:  # those of a run
        known = {"tuned", *(field.name for field in dataclasses.fields(Config))}
    for word in given:
        key = word.split("=")[0]
        group, option = key.lstrip("+"), word.partition("=")[2]
        if key.startswith("+"):
            assert (Path(CONFIG_DIR) / group / f"{option}.yaml").exists(), word
        elif "=" in word and not word.startswith("--"):
            assert key.split(".")[0] in known, word


@pytest.mark.parametrize(("page", "command"), TARGETS)
def test_a_target_and_its_table_are_there(page, command):
    target = command.split()[1]
    assert re.search(rf"^(?:[\w-]+ )*{target}(?: [\w-]+)*:", MAKE, re.MULTILINE), target
    paper, number = (re.search(rf"{key}=(\S+)", command) for key in ("PAPER", "N"))
    if paper and number:
        assert (Path(CONFIG_DIR) / target / paper[1] / f"{number[1]}.yaml").exists(), command


def test_every_page_is_in_the_navigation_of_the_site():
    listed = re.findall(r"(\S+\.md)", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == [page.name for page in SITE]
