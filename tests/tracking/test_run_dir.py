"""The run directory: what may be shared appears whole or not at all, and a finished or foreign folder is left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from unittest.mock import Mock

import pytest

from disk import write_json, write_whole
from errors import InputError
from tracking.run_dir import RunDir

TORCH_2 = {"torch": ("2", "torch {}, here is 2")}


def same(stored: str) -> str | None:
    return None


@pytest.fixture
def folder(tmp_path):
    folder = RunDir(tmp_path / "run")
    folder.open("seed: 0\n", same, TORCH_2)
    return folder


def fill(text: str):
    return lambda target: (target / "samples.npz").write_text(text)


def test_a_release_is_shown_whole_and_only_it_may_be_shared(folder):
    assert folder.published is None
    assert folder.publish(fill("private"), private=True) == folder.release == folder.published
    assert [path.name for path in folder.release.iterdir()] == ["samples.npz"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "internal", "release"]


def test_what_is_not_private_never_appears_under_release(folder):
    target = folder.publish(fill("not private"), private=False)
    assert target == folder.published
    assert folder.internal in target.parents
    assert not folder.release.exists()


def test_a_release_that_fails_halfway_leaves_nothing_and_can_be_written_again(folder):
    def fail(target):
        fill("half")(target)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.publish(fail, private=True)
    assert folder.published is None
    folder.publish(lambda target: (target / "grid.png").write_text("whole"), private=True)
    assert [path.name for path in folder.release.iterdir()] == ["grid.png"]


def test_metrics_mark_a_finished_run_which_is_refused(folder):
    assert not folder.finished
    write_json(folder.metrics, {"a": 1.0})
    assert folder.finished
    with pytest.raises(InputError, match="holds a finished run"):
        folder.open("seed: 0\n", same, TORCH_2)


def test_an_unfinished_run_goes_on_with_its_settings_alone(folder):
    stored: list[str] = []
    folder.open("seed: 0\n", lambda text: stored.append(text), TORCH_2)
    assert stored == ["seed: 0\n"]
    with pytest.raises(InputError, match=r"other settings \(seed: 0 before, 1 now\)"):
        folder.open("seed: 1\n", lambda text: "seed: 0 before, 1 now", TORCH_2)
    assert folder.config.read_text() == "seed: 0\n"


def test_a_folder_that_holds_other_things_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        RunDir(tmp_path).open("seed: 0\n", same, TORCH_2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_refused_run_leaves_no_empty_folders_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "today" / "one").mkdir(parents=True)
    RunDir(tmp_path / "runs" / "today" / "one").remove_if_empty()
    assert not (tmp_path / "runs").exists()
    assert tmp_path.exists()


def test_a_folder_with_something_in_it_is_not_removed(folder):
    folder.remove_if_empty()
    assert folder.config.exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1.0}
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_run_goes_on_only_where_it_rounds_the_same(folder):
    with pytest.raises(InputError, match="unfinished run on torch 2, here is 3"):
        folder.open("seed: 0\n", same, {"torch": ("3", "torch {}, here is 3")})


def test_one_process_at_a_time(folder):
    with pytest.raises(InputError, match="another process is running there"):
        RunDir(folder.path).open("seed: 0\n", same, TORCH_2)
    folder.close()
    RunDir(folder.path).open("seed: 0\n", same, TORCH_2)


def test_a_start_that_was_killed_before_it_wrote_anything_can_be_repeated(tmp_path):
    (tmp_path / "run" / "internal").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml.partial").touch()
    RunDir(tmp_path / "run").open("seed: 0\n", same, TORCH_2)


def test_siblings_are_made_one_after_the_other(tmp_path):
    first, second = stored(tmp_path, "1"), stored(tmp_path, "2")
    waits = Mock(side_effect=first.pass_turn)
    first.take_turn(waits)
    assert not waits.called
    second.take_turn(waits)
    assert waits.called
    second.close()
    first.take_turn(Mock(side_effect=AssertionError))


def test_siblings_are_runs_of_the_store_whose_names_begin_alike(tmp_path):
    for run in (stored(tmp_path, "1"), stored(tmp_path, "2"), stored(tmp_path, "1", release="b"), RunDir(tmp_path / "a-2")):
        run.path.mkdir()
    assert [run.path for run in stored(tmp_path, "1").siblings] == [stored(tmp_path, "2").path]
    assert RunDir(tmp_path / "a-2").siblings == []
    RunDir(tmp_path / "a-2").take_turn(Mock(side_effect=AssertionError))
    assert not list(tmp_path.glob(".*"))


def stored(parent: Path, evaluation: str, release: str = "a") -> RunDir:
    """In the store of sweeps."""
    return RunDir(parent / f"{16 * release}-{8 * evaluation}")


@pytest.fixture
def begun(tmp_path):
    """A run of the store that has drawn its key, and broke."""
    run = stored(tmp_path, "1")
    run.open("seed: 0\n", same, TORCH_2)
    run.noise_key.write_bytes(b"key")
    run.ledger.write_text("{}")
    return run


def test_an_unfinished_release_goes_on_in_one_place(begun, tmp_path):
    begun.close()
    other = stored(tmp_path, "2")
    other.internal.mkdir(parents=True)
    for name in ("internal/lock", "internal/noise.key", "config.yaml.partial"):  # of a start that was killed
        (other.path / name).touch()
    assert other.unspent
    other.adopt(begun)
    assert not begun.path.exists()
    assert other.noise_key.read_bytes() == b"key"
    other.open("seed: 0\n", same, TORCH_2)


def test_a_run_that_another_process_makes_is_not_adopted(begun, tmp_path):
    other = stored(tmp_path, "2")
    with pytest.raises(InputError, match="another process is running there"):
        other.adopt(RunDir(begun.path))
    assert begun.noise_key.exists()
    assert not other.path.exists()


def test_a_release_is_adopted_with_its_curves_and_without_its_evaluation(begun, tmp_path):
    begun.publish(fill("samples"), private=True)
    write_json(begun.metrics, {"accuracy": 0.9})
    begun.curves.write_text('{"loss": 1, "step": 3}\n{"accuracy": 0.9, "step": null}\n{"loss": 2, "st')
    other = stored(tmp_path, "2")
    other.adopt(begun)
    assert (other.release / "samples.npz").read_text() == "samples"
    assert other.curves.read_text() == '{"loss": 1, "step": 3}\n'
    assert not other.finished
    assert begun.finished
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    other.open("seed: 0\n", same, {})  # on another machine
    assert json.loads(other.computed_with.read_text()) == {"torch": "2"}


def test_what_was_spent_for_or_is_not_a_runs_is_not_replaced(begun, tmp_path):
    assert not begun.unspent
    assert RunDir(tmp_path / "nothing").unspent
    other = stored(tmp_path, "2")
    other.path.mkdir()
    assert other.unspent
    (other.path / "thesis.tex").touch()
    assert not other.unspent


def test_a_released_run_is_waited_for_until_nobody_judges_it(begun, tmp_path):
    begun.publish(fill("samples"), private=True)
    other = RunDir(begun.path)
    waits = Mock(side_effect=begun.close)
    other.take_turn(waits)
    assert waits.called
