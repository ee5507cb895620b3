"""The command end to end at toy size: what a run leaves, what it may show, and that no interruption changes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.datasets.digits import Digits
from data.samples import SampleSet
from disk import write_json
from eval.distances import Frechet
from eval.watermark import RED
from pipeline import contents, release
from pipeline.plan import Plan
from privacy.accounting import compose_epsilon
from privacy.mechanisms import Mechanism, Spend, Unit
from store.run_dir import RunDir
from store.seal import altered
from tests.command import (
    NOISY,
    PUBLIC_ONLY,
    SMOKE,
    Result,
    by_torchrun,
    bytes_of,
    call,
    fork,
    fork_run,
    output_of,
    parts_of,
    python_run,
    typed,
)
from tests.rejects import assert_refused
from tracking.meter import PART, SECONDS

SEEDED = [*NOISY, "privacy.noise_seed=1"]
RELEASE = {"samples.npz", "privacy.json", "grid.png", "README.md", "croissant.json"}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def images(folder: Path) -> np.ndarray:
    return SampleSet.load(output_of(folder) / "samples.npz").images


def finished(result: Result, folder: Path) -> Path:
    assert result.code == 0, result.err
    assert (folder / "run" / "internal" / "metrics.json").exists()
    return folder / "run"


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> Path:
    """`python run.py +experiment=smoke`."""
    folder = tmp_path_factory.mktemp("smoke")
    return finished(fork_run(folder, *SMOKE), folder)


@pytest.fixture(scope="session")
def seeded(tmp_path_factory) -> Path:
    """The same with strong, known noise."""
    folder = tmp_path_factory.mktemp("seeded")
    return finished(fork_run(folder, *SEEDED), folder)


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real_data")
    return finished(fork_run(folder, *SMOKE[1:], "method=real_data"), folder)


# What a run leaves


def test_a_run_leaves_the_promised_files_and_no_partial_ones(smoke):
    assert {path.name for path in smoke.iterdir()} == {"release", "internal", "config.yaml", "metrics.jsonl"}
    assert files(smoke / "release") == RELEASE
    assert {"metrics.json", "ledger.jsonl", "noise.key", "checkpoints/population.npz"} <= files(smoke / "internal")
    assert {f"figures/round_{t:03d}.png" for t in range(3)} <= files(smoke / "internal")
    assert not [name for name in files(smoke) if "partial" in name]


def test_the_noise_key_is_readable_by_its_owner_alone(smoke):
    assert (smoke / "internal" / "noise.key").stat().st_mode & 0o077 == 0


def test_a_release_is_evaluated_without_the_noise_key_which_its_holder_may_delete(smoke, here):
    shutil.copytree(smoke, here / "run")
    for name in ("metrics.json", "noise.key"):
        (here / "run" / "internal" / name).unlink()
    before = bytes_of(here / "run" / "release")
    assert finished(call(*SMOKE), here)
    assert bytes_of(here / "run" / "release") == before
    assert not (here / "run" / "internal" / "noise.key").exists()


def test_the_samples_are_labelled_images_of_every_class_with_their_public_conditioning(smoke):
    with np.load(smoke / "release" / "samples.npz") as arrays:
        assert arrays["images"].dtype == np.uint8
        assert arrays["images"].shape == (50, 8, 8, 1)
        assert arrays["labels"].dtype == np.int64
        assert np.bincount(arrays["labels"]).tolist() == [5] * 10
        assert arrays["public_labels"].shape == (50,)


def test_the_certificate_states_what_was_spent_and_its_composition(smoke):
    document, config = read(smoke / "release" / "privacy.json"), typed(*SMOKE)
    assert document["private"] is True
    assert "reason" not in document
    assert (document["delta"], document["accountant"]) == (config.delta, "pld")
    assert (document["unit"], document["neighbouring"]) == ("image", Unit.image.neighbouring)
    assert document["private_images"] == 1437
    assert document["guarantee_is_about"] == "all 1437 training images of digits"
    assert any("1437" in assumption for assumption in document["public_by_assumption"])
    (votes,) = document["mechanisms"]
    assert (votes["purpose"], votes["count"], votes["mechanism"]) == ("pe.votes", 2, "discrete_gaussian")
    kind = {"mechanism": votes["mechanism"], "noise_multiplier": votes["noise_multiplier"]}
    spends = [Spend("pe.votes", Mechanism.from_dict(kind), 2)]
    assert document["epsilon"] == compose_epsilon(spends, document["delta"])
    assert document["epsilon"] == Plan.make(config.method, config.dataset, config.privacy).epsilon
    assert 0.99 * 10 < document["epsilon"] <= document["epsilon_target"] == 10
    assert (document["method"], document["dataset"], document["num_samples"]) == ("pe", "digits", 50)
    assert document["files"].keys() == files(smoke / "release") - {"privacy.json"}
    assert altered(smoke / "release", document) == []


def test_the_ledger_has_one_line_a_round(smoke):
    assert [line["purpose"] for line in lines(smoke / "internal" / "ledger.jsonl")] == ["pe.votes/round=1", "pe.votes/round=2"]


def test_every_number_measured_on_real_data_is_marked_internal(smoke):
    for line in lines(smoke / "metrics.jsonl"):
        names = line.keys() - {"step", "seconds", "internal"}
        assert names
        assert line["internal"] is not all(name.startswith("pe/") for name in names)
    marked = [line["internal"] for line in lines(smoke / "metrics.jsonl")]
    assert True in marked
    assert False in marked


def test_metrics_are_flat_numbers_and_include_every_evaluator(smoke):
    metrics = read(smoke / "internal" / "metrics.json")
    assert all(isinstance(value, float | int) for value in metrics.values())
    assert {"privacy/epsilon", "privacy/delta", "time/method_seconds", "wrn40_4/accuracy"} <= metrics.keys()
    assert any(name.startswith("frechet/") for name in metrics)
    assert 0 <= metrics["wrn40_4/accuracy"] <= 1
    parts = parts_of(smoke)
    assert {f"{PART}{name}": value for name, value in parts.items()}.items() <= metrics.items()
    assert parts.keys() == {"random", "variation", "embedding", "votes", "other"}
    assert sum(parts.values()) == pytest.approx(metrics[SECONDS], abs=0.05)
    assert all(parts[name] > 0 for name in ("random", "variation", "other"))


def test_the_stored_configuration_starts_the_same_run(smoke):
    stored = (smoke / "config.yaml").read_text()
    assert "num_samples: 50" in stored
    assert "${" not in stored  # resolved
    assert "hydra" not in stored


def test_a_finished_run_is_not_run_again(smoke):
    before = bytes_of(smoke)
    result = call(*SMOKE, f"hydra.run.dir={smoke}")
    assert_refused(result, f"hydra.run.dir={smoke}", "finished")
    assert bytes_of(smoke) == before


def test_a_plan_beside_a_finished_run_changes_nothing(smoke):
    before = bytes_of(smoke)
    assert call(*SMOKE, "plan_only=true", f"hydra.run.dir={smoke}").code == 0
    assert bytes_of(smoke) == before


# Baselines


def test_real_data_release_nothing_and_say_so(real_data):
    assert not (real_data / "release").exists()
    withheld = real_data / "internal" / "not_for_release"
    assert len(SampleSet.load(withheld / "samples.npz")) == 1437
    assert Image.open(withheld / "grid.png").convert("RGB").getpixel((0, 0)) == RED  # watermarked
    document = read(withheld / "privacy.json")
    assert (document["private"], document["epsilon"]) == (False, "inf")
    assert "without noise" in document["reason"]


def test_real_data_are_at_distance_zero_from_themselves(real_data):
    metrics = read(real_data / "internal" / "metrics.json")
    distance = next(value for name, value in metrics.items() if name.startswith("frechet/"))
    assert distance == pytest.approx(0, abs=1e-2)


def test_public_only_spends_nothing(here):
    assert call(*PUBLIC_ONLY).code == 0
    document = read(here / "run" / "release" / "privacy.json")
    assert (document["private"], document["epsilon"], document["mechanisms"]) == (True, 0, [])
    assert parts_of(here / "run").keys() == {"sampling", "other"}
    assert not (here / "run" / "internal" / "ledger.jsonl").exists()
    assert not [line for line in lines(here / "run" / "metrics.jsonl") if line["internal"]]


# Noise


def test_known_noise_repeats_the_release_and_voids_the_guarantee(seeded, tmp_path):
    again = finished(fork_run(tmp_path, *SEEDED), tmp_path)
    assert bytes_of(output_of(again)) == bytes_of(output_of(seeded))
    assert not (seeded / "release").exists()
    document = read(output_of(seeded) / "privacy.json")
    assert document["private"] is False
    assert "privacy.noise_seed=1" in document["reason"]


def test_secret_noise_never_repeats(seeded, tmp_path):
    one, two = (finished(fork_run(tmp_path / name, *NOISY, "eval=none"), tmp_path / name) for name in ("one", "two"))
    assert not np.array_equal(images(one), images(two))
    assert not np.array_equal(images(one), images(seeded))
    assert (one / "internal" / "noise.key").read_bytes() != (two / "internal" / "noise.key").read_bytes()
    assert read(one / "release" / "privacy.json")["private"] is True
    assert not (seeded / "internal" / "noise.key").exists()


# Evaluation never feeds back


def other_test_split() -> None:
    """The test split, its labels permuted and its images inverted."""
    original = Digits.test

    def test(self: Digits) -> SampleSet:
        split = original(self)
        return SampleSet(255 - split.images, np.random.default_rng(0).permutation(split.labels), 10)

    Digits.test = test  # type: ignore[method-assign]


def test_another_test_split_changes_no_byte_of_the_release(seeded, tmp_path):
    other = finished(fork_run(tmp_path, *SEEDED, "eval.frechet.reference=test", patch=other_test_split), tmp_path)
    assert bytes_of(output_of(other)) == bytes_of(output_of(seeded))
    assert read(other / "internal" / "metrics.json") != read(seeded / "internal" / "metrics.json")


def test_a_failed_evaluator_leaves_an_unfinished_run_that_can_be_evaluated_again(here, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("covariance")
        yield

    evaluated = [*PUBLIC_ONLY, "eval=default", "eval.downstream.enabled=false"]
    with monkeypatch.context() as patch:
        patch.setattr(Frechet, "evaluate", broken)
        result = call(*evaluated)
    assert result.code == 1
    assert "frechet: ZeroDivisionError: covariance" in result.err
    assert not (here / "run" / "internal" / "metrics.json").exists()
    before = bytes_of(here / "run" / "release")
    assert call(*evaluated).code == 0
    assert (here / "run" / "internal" / "metrics.json").exists()
    assert bytes_of(here / "run" / "release") == before


# Interruptions


def assert_resumes_to(seeded: Path, folder: Path) -> None:
    assert not (folder / "run" / "internal" / "metrics.json").exists()
    resumed = finished(fork_run(folder, *SEEDED), folder)
    assert bytes_of(output_of(resumed)) == bytes_of(output_of(seeded))
    assert len(lines(resumed / "internal" / "ledger.jsonl")) == 2
    config = typed(*SEEDED)
    planned = Plan.make(config.method, config.dataset, config.privacy).epsilon
    assert read(output_of(resumed) / "privacy.json")["epsilon"] == planned


def test_two_processes_evolve_bitwise_what_one_does(seeded, tmp_path):
    both = finished(by_torchrun(2, "run.py", *SEEDED, f"hydra.run.dir={tmp_path}/run"), tmp_path)
    assert bytes_of(output_of(both)) == bytes_of(output_of(seeded))
    assert lines(both / "internal" / "ledger.jsonl") == lines(seeded / "internal" / "ledger.jsonl")


@pytest.mark.parametrize("entries", [0, 2])
def test_a_run_killed_in_its_rounds_resumes_to_the_same_release(seeded, tmp_path, entries):
    internal = tmp_path / "run" / "internal"
    saved, ledger = internal / "checkpoints" / "population.npz", internal / "ledger.jsonl"
    fork(tmp_path, *SEEDED).kill_when(lambda: saved.exists() and len(lines(ledger)) >= entries)
    assert RunDir(tmp_path / "run").output is None
    write_json(internal / "checkpoints" / "meter.json", {SECONDS: 1000.0, f"{PART}votes": 500.0})
    assert_resumes_to(seeded, tmp_path)
    assert read(internal / "metrics.json")[SECONDS] > 1000
    assert parts_of(tmp_path / "run")["votes"] >= 500


def test_a_run_killed_in_its_evaluation_keeps_its_release_and_finishes(seeded, tmp_path):
    curves = tmp_path / "run" / "metrics.jsonl"
    fork(tmp_path, *SEEDED).kill_when(lambda: curves.exists() and "frechet" in curves.read_text())
    assert bytes_of(output_of(tmp_path / "run")) == bytes_of(output_of(seeded))
    assert_resumes_to(seeded, tmp_path)


@pytest.mark.parametrize("lost", ["grid.png", "cost.json"])
def test_a_run_that_breaks_around_its_release_can_be_finished(here, monkeypatch, lost):
    """`release/` appears whole or not at all, and what follows it can be made again."""
    writers = {(module, name): getattr(module, name) for module, name in ((contents, "save_grid"), (release, "write_json"))}

    def breaks(original: Any) -> Any:
        def write(*args, **settings):
            if any(isinstance(arg, Path) and arg.name == lost for arg in args):
                raise OSError("disk full")
            return original(*args, **settings)

        return write

    with monkeypatch.context() as patch:
        for (module, name), original in writers.items():
            patch.setattr(module, name, breaks(original))
        with pytest.raises(OSError, match="disk full"):
            call(*PUBLIC_ONLY)
    assert not (here / "run" / "internal" / "metrics.json").exists()
    assert not (here / "run" / "release").exists() or files(here / "run" / "release") == RELEASE
    assert call(*PUBLIC_ONLY).code == 0
    assert files(here / "run" / "release") == RELEASE


# Sweeps


def test_a_sweep_makes_one_run_directory_for_each_value(here):
    result = call("-m", "hydra.sweep.dir=sweep", "seed=0,1", *PUBLIC_ONLY)
    assert result.code == 0, result.err
    runs = [here / "sweep" / name for name in ("0", "1")]
    assert all((folder / "internal" / "metrics.json").exists() for folder in runs)
    assert not np.array_equal(images(runs[0]), images(runs[1]))


# The exit status of a real process


def test_a_mistake_of_the_user_is_one_line_and_exit_status_2(tmp_path):
    result = python_run("method.iterations=0", f"hydra.run.dir={tmp_path}/run")
    assert_refused(result, "method.iterations=0")
    assert not (tmp_path / "run").exists()
