"""The run directory: what may be shared appears whole or not at all, and a finished or foreign folder is left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from unittest.mock import Mock

import pytest

from disk import write_json, write_whole
from store.run_dir import RunDir
from tests.rejects import rejects

TORCH_2 = {"torch": ("2", "torch {}, here is 2")}


def same(stored: str) -> str | None:
    return None


def opened(folder: RunDir) -> RunDir:
    folder.require_usable(same)
    folder.making.lock()
    for place in (folder.making, folder):
        place.open("seed: 0\n")
    folder.start_with(TORCH_2)
    return folder


@pytest.fixture
def folder(tmp_path):
    return opened(RunDir(tmp_path / "run"))


def fill(text: str):
    return lambda target: (target / "samples.npz").write_text(text)


def test_a_release_is_shown_whole_and_only_it_may_be_shared(folder):
    assert folder.output is None
    assert folder.publish(fill("private"), private=True) == folder.release == folder.output
    assert [path.name for path in folder.release.iterdir()] == ["samples.npz"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "internal", "release"]


def test_what_is_not_private_never_appears_under_release(folder):
    target = folder.publish(fill("not private"), private=False)
    assert target == folder.output
    assert folder.internal in target.parents
    assert not folder.release.exists()


def test_a_release_that_fails_halfway_leaves_nothing_and_can_be_written_again(folder):
    def fail(target):
        fill("half")(target)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.publish(fail, private=True)
    assert folder.output is None
    folder.publish(lambda target: (target / "grid.png").write_text("whole"), private=True)
    assert [path.name for path in folder.release.iterdir()] == ["grid.png"]


def test_metrics_mark_a_finished_run_which_is_refused(folder):
    assert not folder.finished
    write_json(folder.metrics, {"a": 1.0})
    assert folder.finished
    with rejects("hydra.run.dir", folder.path, "finished"):
        folder.require_usable(same)


def test_an_unfinished_run_goes_on_with_its_settings_alone(folder):
    stored: list[str] = []
    folder.require_usable(lambda text: stored.append(text))
    assert stored == ["seed: 0\n"]
    with rejects("hydra.run.dir", folder.path, "seed: 0 before, 1 now"):
        folder.require_usable(lambda text: "seed: 0 before, 1 now")
    folder.open("seed: 1\n")
    assert folder.config.read_text() == "seed: 0\n"


def test_a_folder_that_holds_other_things_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with rejects("hydra.run.dir", tmp_path):
        RunDir(tmp_path).require_usable(same)
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
    with rejects("hydra.run.dir", folder.path, "torch 2, here is 3"):
        folder.start_with({"torch": ("3", "torch {}, here is 3")})


def test_one_process_at_a_time(folder):
    with rejects("hydra.run.dir", folder.path, "another process"):
        opened(RunDir(folder.path))
    folder.close()
    opened(RunDir(folder.path))


def test_a_start_that_was_killed_before_it_wrote_anything_can_be_repeated(tmp_path):
    (tmp_path / "run" / "internal").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml.partial").touch()
    opened(RunDir(tmp_path / "run"))


# In the store of sweeps


def stored(parent: Path, evaluation: str, release: str = "a") -> RunDir:
    return RunDir(parent / f"{16 * release}-{8 * evaluation}")


def test_runs_that_differ_in_evaluation_alone_make_one_release_in_a_folder_of_its_own(tmp_path):
    first, second, other = stored(tmp_path, "1"), stored(tmp_path, "2"), stored(tmp_path, "1", release="b")
    assert first.making.path == second.making.path == tmp_path / (16 * "a")
    assert other.making.path != first.making.path
    assert first.making.only_makes
    assert not first.only_makes
    opened(first)
    first.noise_key.write_bytes(b"key")
    first.publish(fill("samples"), private=True)
    first.link_release()
    write_json(first.metrics, {"accuracy": 0.9})
    assert (second.output, second.noise_key) == (first.output, first.noise_key)
    assert first.finished
    assert not second.finished
    assert (first.path / "release" / "samples.npz").read_text() == "samples"


def test_what_is_not_private_is_linked_under_internal(tmp_path):
    run = opened(stored(tmp_path, "1"))
    run.publish(fill("not private"), private=False)
    run.link_release()
    run.link_release()
    assert (run.path / "internal" / "not_for_release" / "samples.npz").read_text() == "not private"
    assert not (run.path / "release").exists()


def test_a_release_is_made_by_one_process_while_others_wait(tmp_path):
    first, second = opened(stored(tmp_path, "1")), stored(tmp_path, "2")
    waits = Mock(side_effect=first.close)
    second.making.lock(waits)
    assert waits.called
    second.close()
    first.making.lock(Mock(side_effect=AssertionError))


def test_two_evaluations_of_one_release_run_side_by_side(tmp_path):
    first, second = opened(stored(tmp_path, "1")), stored(tmp_path, "2")
    first.making.close()
    first.lock()
    second.making.lock(Mock(side_effect=AssertionError))
    second.making.close()
    second.lock(Mock(side_effect=AssertionError))


def test_a_run_directory_elsewhere_makes_its_own_release(tmp_path):
    run = RunDir(tmp_path / "a-2")
    assert run.making is run
    assert not run.in_store


def test_internal_is_for_its_owner_alone_in_the_store_too_and_where_it_was_open(tmp_path):
    run = RunDir(tmp_path / f"{16 * 'a'}-{8 * 'b'}")
    run.internal.mkdir(parents=True)
    run.internal.chmod(0o755)
    opened(run)
    assert run.making is not run
    for place in (run, run.making):
        assert place.internal.stat().st_mode & 0o077 == 0
