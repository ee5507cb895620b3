"""A store of sweeps in the old form, where a run and its release lay in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from scripts import convert_store
from store.identity import digest, plain
from store.run_dir import RunDir
from tests.command import typed
from tests.rejects import ANY, rejects

FRECHET = "eval.frechet.floor=false"


def old(store: Path, name: str, *overrides: str, samples: str = "samples", released: bool = True) -> Path:
    """As an earlier version left it: fewer keys, no δ named, all in one folder."""
    folder, values = store / name, plain(typed(*overrides))
    del values["model"]["base_is_other_data"], values["eval"]["manifold"]
    values["privacy"]["delta"] = None
    (folder / "internal" / "evaluation").mkdir(parents=True)
    (folder / "internal" / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    (folder / "metrics.jsonl").write_text("{}\n")
    for file in ("ledger.jsonl", "noise.key", "cost.json", "made_with.json", "computed_with.json"):
        (folder / "internal" / file).write_text(file)
    (folder / "internal" / "evaluation" / "frechet.json").write_text(name)
    if released:
        (folder / "release").mkdir()
        (folder / "release" / "samples.npz").write_text(samples)
        (folder / "release" / "privacy.json").write_text(json.dumps({"delta": 3.4e-4}))
        (folder / "internal" / "metrics.json").write_text(name)
    return folder


def files(run: RunDir) -> set[str]:
    return {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file() and not path.is_symlink()}


@pytest.fixture
def store(tmp_path) -> Path:
    old(tmp_path, f"{16 * 'a'}-{8 * '1'}")
    old(tmp_path, f"{16 * 'a'}-{8 * '2'}", FRECHET)
    old(tmp_path, f"{16 * 'b'}-{8 * '1'}", "seed=1", released=False)
    return tmp_path


def test_runs_are_found_where_their_settings_say_and_share_their_release(store):
    convert_store.main([str(store)])
    pinned = "privacy.delta=3.4e-4"  # what they were certified with
    one, two = (RunDir(store / digest(typed(pinned, *more))) for more in ([], [FRECHET]))
    assert one.making.path == two.making.path
    assert one.metrics.read_text() == f"{16 * 'a'}-{8 * '1'}"
    assert two.metrics.read_text() == f"{16 * 'a'}-{8 * '2'}"
    assert (two.path / "release" / "samples.npz").read_text() == "samples"
    assert {"internal/ledger.jsonl", "internal/noise.key", "internal/cost.json", "metrics.jsonl"} <= files(one.making)
    assert "internal/evaluation/frechet.json" in files(one)
    assert not {"internal/noise.key", "internal/ledger.jsonl"} & files(one)
    assert (store / f"{16 * 'b'}-{8 * '1'}" / "internal" / "noise.key").exists()  # unfinished, so it stays
    assert not [path for path in store.iterdir() if path.name.startswith(16 * "a")]


@pytest.mark.parametrize("differs", ["internal/noise.key", "release/privacy.json"])
def test_another_release_of_the_same_settings_stays_where_it_is(store, capsys, differs):
    other = old(store, f"{16 * 'c'}-{8 * '1'}")
    (other / differs).write_text('{"delta": 3.4e-4, "id": "another"}')
    before = files(RunDir(other))
    convert_store.main([str(store)])
    assert files(RunDir(other)) - {"internal/lock"} == before
    assert "another release that was made with the same settings" in capsys.readouterr().out


def test_a_run_that_another_process_has_stays_where_it_is(store, capsys):
    running = RunDir(store / f"{16 * 'a'}-{8 * '1'}")
    running.lock()
    convert_store.main([str(store)])
    assert running.metrics.exists()
    assert "another process is running there" in capsys.readouterr().out


def test_a_second_time_changes_nothing(store, capsys):
    convert_store.main([str(store)])
    before = sorted(path.name for path in store.iterdir())
    capsys.readouterr()
    convert_store.main([str(store)])
    assert sorted(path.name for path in store.iterdir()) == before
    assert "0 of 3 runs converted" in capsys.readouterr().out  # one of them has no release


@pytest.mark.parametrize("moves", [1, 3, 6])
def test_a_conversion_that_is_killed_goes_on(store, monkeypatch, moves):
    move, left = shutil.move, iter(range(moves))

    def killed(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_store.main([str(store)])
    test_runs_are_found_where_their_settings_say_and_share_their_release(store)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with rejects(None, ANY, f"{tmp_path}/nowhere"):
        convert_store.main([str(tmp_path / "nowhere")])
