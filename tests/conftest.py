from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from unittest import mock

import numpy as np
import pytest
import torch
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult

from data.samples import SampleSet

torch.set_num_threads(1)  # toy sizes gain nothing from more, and two processes that share cores stall each other

# Of tests.command: they start the command.
STARTERS = {"by_torchrun", "call", "fork", "fork_run", "in_processes", "on_nodes", "python_run"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start the command, themselves or by what they use: nobody has to remember to."""
    known: dict[object, bool] = {}
    for item in items:
        assert isinstance(item, pytest.Function)
        fixtures = [made.func for name in item.fixturenames for made in item._fixtureinfo.name2fixturedefs.get(name, ())]
        if any(_starts_the_command(function, known) for function in (item.function, *fixtures)):
            item.add_marker("end_to_end")


def _starts_the_command(function: object, known: dict[object, bool]) -> bool:
    """By the names in its code, and in that of the functions of tests that it names."""
    if not isinstance(function, FunctionType) or not function.__module__.startswith(("tests", "conftest")):
        return False
    if function not in known:
        known[function] = False  # where functions name each other
        if function.__module__ == "tests.command":
            known[function] = function.__name__ in STARTERS
        else:
            named = [function.__globals__.get(name) for name in _names(function.__code__)]
            known[function] = any(_starts_the_command(one, known) for one in named)
    return known[function]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


@pytest.fixture(autouse=True, scope="session")
def schemas_are_not_copied() -> Iterator[None]:
    """Each time Hydra composes, it copies every registered schema, in a sixth of its time, to give its repository other sources.

    A shallow copy does: the sources are replaced, and no schema is changed.
    """

    def shallow(self: CachingConfigRepository, delegate: ConfigRepository) -> None:
        self.delegate, self.cache = copy.copy(delegate), {}

    with mock.patch.object(CachingConfigRepository, "__init__", shallow):
        yield


@pytest.fixture(autouse=True, scope="session")
def files_of_conf_are_read_once() -> Iterator[None]:
    """Each time Hydra composes, it reads and parses some twenty files. Merging copies what is in them, and changes none."""
    load, read = ConfigRepository.load_config, {}

    def load_once(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() not in ("file", "pkg"):  # the others are schemas, which tests add to
            return load(self, config_path)
        key = source.scheme(), source.path, config_path, _state(Path(source.path, source._normalize_file_name(config_path)))
        if key not in read:
            read[key] = load(self, config_path)
        found = copy.copy(read[key])
        assert found is not None
        found.defaults_list = copy.deepcopy(found.defaults_list)
        return found

    with mock.patch.object(ConfigRepository, "load_config", load_once):
        yield


def _state(file: Path) -> tuple[int, int] | None:
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def like_cifar10(tmp_path_factory) -> Path:
    """An npz of 5,000 black images in ten classes."""
    path = tmp_path_factory.mktemp("like_cifar10") / "images.npz"
    SampleSet(np.zeros((5_000, 32, 32, 3), np.uint8), np.arange(5_000) % 10, num_classes=10).save(path)
    return path
