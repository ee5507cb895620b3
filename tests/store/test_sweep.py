"""Sweeps: where runs lie, what is found again, what they cost together, and a failure that stops no other run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import wandb
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf.errors import InterpolationResolutionError

import conf.callback
from conf.compose import compose_config
from pipeline import resume, running
from privacy.accounting import compose_epsilon
from privacy.ledger import aggregate, read_entries
from privacy.mechanisms import DiscreteGaussian, SampledGaussian, Spend
from privacy.risk import format_epsilon
from store.identity import digest
from store.run_dir import RunDir
from store.sweep import Sweep, distinct_spends
from tests.command import STRONG_NOISE, Result, call, composed, python_run, typed
from tests.rejects import assert_refused
from tracking.tracker import TrackerConfig

TINY = ["+experiment=smoke", "eval=none", "device=cpu", *STRONG_NOISE, "method.num_samples=20", "method.iterations=1"]
TINY += ["method.variation_degrees=[2]"]


def sweep(*overrides: str, folder: str = "sweep") -> Result:
    return call("-m", f"hydra.sweep.dir={folder}", *TINY, *overrides)


def links(folder: str = "sweep") -> dict[str, Path]:
    return {path.name: path.resolve() for path in Path(folder).iterdir() if path.is_symlink()}


def test_what_runs_inherit_from_one_release_was_spent_once():
    votes, training = Spend("pe.votes", DiscreteGaussian(2.0), 3), Spend("dp_sgd", SampledGaussian(1.0, 0.1), 5)
    base = Spend("base:ab12.dp_sgd", training.mechanism, 5)
    two = [([base, votes], {"id": "cd34"}), ([base, votes], None)]
    assert distinct_spends(two) == [base, votes, votes]
    assert len(distinct_spends([([training], {"id": "ab12"}), *two])) == 3  # the run that released it is among them
    assert len(distinct_spends([([training], {"id": "ef56"}), *two])) == 4


def test_an_experiment_may_set_one_value_by_another():
    sizes = [composed("+experiment=digits/pe", f"privacy.epsilon={epsilon}").method.num_samples for epsilon in (1, 10)]
    assert sizes == [1000, 3000]
    with pytest.raises(InterpolationResolutionError, match=r"privacy\.epsilon .*10\.0, 3\.0, 1\.0.* 2\.0"):
        _ = composed("+experiment=digits/pe", "privacy.epsilon=2").method.num_samples


def test_runs_that_differ_in_evaluation_alone_share_what_was_spent_and_released(here):
    assert sweep("seed=0").code == 0
    result = sweep("eval.frechet.enabled=true,false", "seed=0", folder="other")
    assert result.code == 0, result.err
    assert result.err.count("finished before, kept") == 1
    assert [found["runs"] for found in Sweep(Path("sweep")).composed()] == [1]
    first, judged = links()["0"], links("other")["0"]
    assert links("other")["1"] == first != judged
    for file in ("release/samples.npz", "release/privacy.json"):
        assert (judged / file).read_bytes() == (first / file).read_bytes()
    numbers = [json.loads((path / "internal" / "metrics.json").read_text()) for path in (first, judged)]
    assert not [name for name in numbers[0] if "frechet" in name]
    assert [name for name in numbers[1] if "frechet" in name]
    assert judged.with_name(judged.name.split("-")[0]) == RunDir(first).making.path
    (found,) = json.loads(Path("other/internal/report.json").read_text())["composed"]
    assert found["runs"] == 1
    assert found["epsilon"] == pytest.approx(found["spent"][0])
    assert "share one release" in result.out


def test_a_run_that_broke_goes_on_under_another_evaluation(here, monkeypatch):
    publish, calls = running.publish, iter([True])

    def breaks_once(*args: Any) -> None:
        if next(calls, False):
            raise OSError("disk full")
        publish(*args)

    monkeypatch.setattr(running, "publish", breaks_once)
    result = sweep("eval.frechet.enabled=true,false")
    assert result.code == 1
    assert set(links()) == {"0", "1"}
    broken, finished = (RunDir(links()[name]) for name in ("0", "1"))
    assert not broken.finished
    assert finished.finished
    assert broken.making.path == finished.making.path  # one key, one release
    assert finished.certificate is not None
    spent = format_epsilon(finished.certificate["epsilon"])
    rows = [[cell.strip() for cell in line.split("│")] for line in result.out.splitlines() if line.startswith("│")]
    told = {row[1]: row[3] for row in rows if row[1] in links()}
    assert told == {"0": spent, "1": spent}  # the broken one's too, whose release the other one made
    samples = (finished.release / "samples.npz").read_bytes()
    assert len(read_entries(finished.ledger)) == 1
    assert sweep("eval.frechet.enabled=true,false", folder="other").code == 0
    assert (links("other")["0"] / "release" / "samples.npz").read_bytes() == samples
    assert len(read_entries(finished.ledger)) == 1
    assert [found["runs"] for found in Sweep(Path("other")).composed()] == [1]


def test_a_run_of_the_store_is_made_for_its_own_settings(here):
    """By the folder's name, also where the command is not a sweep's."""
    folder = f"runs/by_config/{digest(typed(*TINY))}"
    refused = call(f"hydra.run.dir={folder}", *TINY, "eval.frechet.enabled=true")
    assert_refused(refused, f"hydra.run.dir={here}/{folder}", "other settings")
    assert not Path("runs").exists()
    assert call(f"hydra.run.dir={folder}", *TINY).code == 0
    judged = f"runs/by_config/{digest(typed(*TINY, 'eval.frechet.enabled=true'))}"
    assert call(f"hydra.run.dir={judged}", *TINY, "eval.frechet.enabled=true").code == 0
    assert Path(judged, "release").resolve() == Path(folder, "release").resolve()


def test_a_run_that_was_made_while_another_waited_is_kept(here, monkeypatch):
    lock = RunDir.lock

    def waits(folder: RunDir, told: Any = None) -> None:
        monkeypatch.setattr(RunDir, "lock", lock)
        assert sweep("seed=0", folder="meanwhile").code == 0
        lock(folder, told)

    monkeypatch.setattr(RunDir, "lock", waits)
    result = sweep("seed=0")
    assert result.code == 0, result.err
    assert "finished before, kept" in result.err
    assert links() == links("meanwhile")


def test_a_release_whose_ledger_is_lost_still_counts(here):
    assert sweep("seed=0,1").code == 0
    (before,) = json.loads(Path("sweep/internal/report.json").read_text())["composed"]
    for path in links().values():
        RunDir(path).ledger.write_text("{torn")
    assert Sweep(Path("sweep")).composed() == [before]


@pytest.mark.filterwarnings("ignore:Callback Report")
def test_a_report_that_breaks_ends_with_status_1(here, monkeypatch):
    monkeypatch.setattr(conf.callback, "report", Mock(side_effect=OSError("disk full")))
    assert sweep("seed=0").code == 1


def test_a_sweep_runs_only_what_is_missing_and_says_what_all_runs_cost_together(here):
    assert sweep("seed=0,1").code == 0
    first = links()
    assert set(first) == {"0", "1"}
    assert all(path.parent == here / "runs" / "by_config" for path in first.values())
    written = {path: (path / "internal" / "metrics.json").stat().st_mtime_ns for path in first.values()}
    again = sweep("seed=1,2", folder="other")
    assert again.code == 0, again.err
    assert again.err.count("finished before, kept") == 1
    assert links("other")["0"] == first["1"]
    assert all((path / "internal" / "metrics.json").stat().st_mtime_ns == before for path, before in written.items())

    (found,) = json.loads(Path("other/internal/report.json").read_text())["composed"]
    spends = [spend for path in links("other").values() for spend in aggregate(read_entries(RunDir(path).ledger))]
    assert found["epsilon"] == pytest.approx(compose_epsilon(spends, found["delta"]))
    assert found["runs"] == 2
    assert found["epsilon"] > max(found["spent"])
    assert "has spent what all did" in again.out
    assert "costs more than any ε says" in again.out


def test_a_failed_run_does_not_stop_the_others_and_is_listed_at_the_end(here):
    result = sweep("method.num_samples=5,20")  # fewer than the classes
    assert result.code == 1
    assert set(links()) == {"1"}
    assert "failed: " in result.out
    assert "method.num_samples=5" in result.out
    assert len([path for path in (here / "runs" / "by_config").iterdir() if RunDir(path).in_store]) == 1
    assert sweep("method.num_samples=20").code == 0
    assert set(links()) == {"0"}
    assert not Path("sweep/internal/failed.jsonl").exists()


def test_runs_whose_noise_is_known_have_no_epsilon_together(here):
    assert sweep("privacy.noise_seed=1,2").code == 0
    (found,) = json.loads(Path("sweep/internal/report.json").read_text())["composed"]
    assert found["epsilon"] == "inf"
    assert found["spent"] == ["inf", "inf"]


def test_a_sweep_that_is_refused_leaves_nothing(here):
    assert call("-m", "+experiment=digits/pe", "privacy.epsilon=2,1", "seed=0").code == 2
    assert not list(here.iterdir())


def test_a_sweep_of_plans_leaves_nothing(here):
    result = sweep("seed=0,1", "plan_only=true")
    assert result.code == 0
    assert result.out.count('"noise_multiplier": 20') == 4
    assert not list(here.iterdir())


def test_a_run_that_another_process_judges_is_waited_for(here, monkeypatch):
    import fcntl

    assert sweep("seed=0").code == 0
    (first,) = links().values()
    metrics = first / "internal" / "metrics.json"
    numbers = metrics.read_text()
    metrics.unlink()
    with (first / "internal" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tell = resume.tell

        def finishes(folder: RunDir, text: str) -> None:
            tell(folder, text)
            metrics.write_text(numbers)
            held.close()

        monkeypatch.setattr(resume, "tell", finishes)
        result = sweep("seed=0", folder="other")
    assert result.code == 0, result.err
    assert "waits for another process, which evaluates this release" in result.err
    assert "finished before, kept" in result.err


@pytest.mark.parametrize("finishes", [True, False])
def test_a_tracker_is_built_where_the_lock_is_held(here, monkeypatch, finishes):
    import fcntl

    assert sweep("seed=0").code == 0
    run = RunDir(next(iter(links().values())))
    numbers, built = run.metrics.read_text(), []
    run.metrics.unlink()
    build = TrackerConfig.build

    def counted(*args: Any, **settings: Any) -> Any:
        built.append(args)
        return build(*args, **settings)

    monkeypatch.setattr(TrackerConfig, "build", counted)
    with (run.internal / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)

        def ends(folder: RunDir, text: str) -> None:
            assert not built
            if finishes:
                run.metrics.write_text(numbers)
            held.close()

        with monkeypatch.context() as patch:
            patch.setattr(resume, "tell", ends)
            assert sweep("seed=0", folder="other").code == 0
    assert len(built) == (0 if finishes else 1)


def test_a_sweeps_link_leads_to_the_run_of_those_settings_alone(here):
    assert sweep("seed=0").code == 0
    (first,) = links().values()
    (first / "internal" / "metrics.json").unlink()
    refused = call("hydra.run.dir=sweep/0", *TINY, "seed=0", "eval.frechet.enabled=true")
    assert_refused(refused, f"hydra.run.dir={first}", "other settings")
    assert call("hydra.run.dir=sweep/0", *TINY, "seed=0").code == 0
    assert (first / "internal" / "metrics.json").exists()


def test_a_release_that_began_on_another_machine_is_left_as_it_is(here):
    assert sweep("seed=0").code == 0
    first = RunDir(links()["0"])
    shutil.rmtree(first.release)
    first.metrics.unlink()
    started = first.computed_with
    started.write_text(started.read_text().replace('"torch": "', '"torch": "0.'))
    refused = sweep("seed=0", "eval.frechet.enabled=true", folder="other")
    assert refused.code == 2
    assert "torch 0." in refused.err
    assert first.noise_key.exists()


def test_a_release_of_which_only_the_record_is_here_is_refused(here):
    assert sweep("seed=0").code == 0
    (RunDir(links()["0"]).release / "samples.npz").unlink()
    refused = sweep("seed=0", "eval.frechet.enabled=true", folder="other")
    assert refused.code == 2
    assert "neither samples nor a classifier" in refused.err


def test_a_crash_leaves_its_traceback_and_the_command_that_goes_on(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(running, "publish", Mock(side_effect=ValueError("no such file")))  # one of our own code, no user's
        result = sweep("seed=0,1")
    assert result.code == 1
    for failure in json.loads(Path("sweep/internal/report.json").read_text())["failed"]:
        text = Path(failure["error"]).read_text()
        assert "Traceback" in text
        assert "ValueError: no such file" in text
        assert f"hydra.run.dir={Path(failure['error']).parents[1]}" in text
        assert failure["error"] in result.out
        assert failure["status"] == 1
    command = shlex.split(next(line for line in text.splitlines() if "python run.py" in line))
    assert call(*command[2:]).code == 0
    assert not Path(failure["error"]).exists()


def test_a_sweep_is_not_for_torchrun(here, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sweep("seed=0").code == 2
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_in_several_processes_is_one_sweep(here, launcher):
    """Each run in a process of its own: two of them at once, or as jobs of Slurm's stand-in."""
    tasks = {"joblib": "hydra.launcher.n_jobs=2", "submitit_local": "hydra.launcher.timeout_min=10"}
    arguments = ["-m", f"hydra/launcher={launcher}", tasks[launcher], f"hydra.sweep.dir={here}/sweep", *TINY]
    result = python_run(*arguments, "method.num_samples=5,20", "seed=0,1", folder=here)
    assert result.code == 1, result.err
    assert set(links("sweep")) == {"2", "3"}
    assert len(set(links("sweep").values())) == 2
    assert result.out.count("failed: ") == 2
    (found,) = json.loads(Path("sweep/internal/report.json").read_text())["composed"]
    assert found["runs"] == 2


@pytest.mark.slow
def test_the_tasks_of_a_job_are_the_processes_of_its_run(here):
    """As those of a Slurm job with a GPU for each."""
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60", "hydra.launcher.tasks_per_node=2"]
    again = ["-m", *launcher, f"hydra.sweep.dir={here}/sweep", *TINY, "seed=0"]
    for finished in (False, True):
        result = python_run(*again, folder=here, GLOO_SOCKET_IFNAME="lo")
        assert result.code == 0, result.err
        (run,) = [Path(link) for link in links("sweep").values()]
        assert RunDir(run).finished
        assert (RunDir(run).making.internal / "ranks" / "1").is_dir()
        told = [file.read_text() for file in sorted(Path("sweep/.submitit").rglob("*_log.out"))]
        assert len(told) == (4 if finished else 2)
        assert sum("run directory" in text for text in told) == 1  # the first process reports


def test_a_sweep_whose_launcher_loses_a_process_reports_what_there_is(here, monkeypatch):
    basic: Any
    (basic,) = (one for one in Plugins.instance().discover(Launcher) if one.__name__ == "BasicLauncher")
    launch, publish = basic.launch, running.publish

    def loses_the_last(self: Launcher, job_overrides: Any, initial_job_idx: int) -> Any:
        launch(self, job_overrides[:1], initial_job_idx)
        monkeypatch.setattr(running, "publish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            launch(self, job_overrides[1:], initial_job_idx + 1)
        raise RuntimeError("a worker was killed\nby the system")

    monkeypatch.setattr(basic, "launch", loses_the_last)
    result = sweep("seed=0,1")
    assert result.code == 1
    assert "error: the sweep broke off (RuntimeError: a worker was killed); the same command runs what is missing" in result.err
    assert f"failed: {links()['1']}: its process ended (RuntimeError: a worker was killed)" in result.out
    (found,) = json.loads(Path("sweep/internal/report.json").read_text())["composed"]
    assert found["runs"] == 2  # one of them unfinished, and spent for
    monkeypatch.setattr(running, "publish", publish)
    monkeypatch.setattr(basic, "launch", launch)
    assert sweep("seed=0,1").code == 0


def test_two_sweeps_of_one_moment_have_folders_of_their_own(here):
    config = [compose_config(TINY, with_hydra=True).hydra.sweep.dir for _ in range(2)]
    assert len(set(config)) == 2


@pytest.mark.parametrize(("settings", "group"), [(TINY, "smoke"), (TINY[1:], "sweep")])  # its experiment, or its folder
def test_the_runs_of_a_sweep_are_one_group_in_wandb_with_what_they_are_compared_by(here, monkeypatch, settings, group):
    monkeypatch.setattr(wandb, "init", init := Mock())
    result = call("-m", "hydra.sweep.dir=sweep", *settings, "tracker=wandb", "seed=0,1")
    assert result.code == 0, result.err
    assert [given.kwargs["group"] for given in init.call_args_list] == [group] * 2
    assert len({given.kwargs["id"] for given in init.call_args_list}) == 2
    summary = init.return_value.summary.update.call_args_list[0].args[0]
    assert {"privacy/epsilon", "privacy/delta", "method", "dataset"} <= set(summary)
