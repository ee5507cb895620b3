"""The Python API, and what a crash leaves."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from conf import compose
from data.samples import SampleSet
from pipeline import EvaluationError, run, running
from pipeline.session import Session
from privacy.ledger import BudgetError
from tests.command import PUBLIC_ONLY, SMOKE, call
from tests.rejects import rejects

QUICK = [*SMOKE, "eval=none"]


def test_a_run_from_python_gives_its_samples_certificate_metrics_and_path(here):
    result = run(compose([*QUICK, "privacy.epsilon=5"]), "mine")
    assert result is not None
    assert result.path == Path("mine")
    assert len(result.samples) == 50
    assert np.array_equal(result.samples.images, SampleSet.load(Path("mine/release/samples.npz")).images)
    assert result.certificate["epsilon"] == pytest.approx(5, rel=1e-3)
    assert result.metrics["privacy/epsilon"] == result.certificate["epsilon"]


@pytest.mark.parametrize("overrides", [["method.iterations=0"], ["privacy.epsilon=-1.0"], ["device=cuda:99"]])
def test_what_the_command_refuses_is_an_input_error_and_leaves_nothing(here, overrides):
    with rejects(*overrides[0].split("=")):
        run(compose([*QUICK, *overrides]), "mine")
    assert not Path("mine").exists()


def test_a_finished_run_is_refused_or_given_back(here):
    config = compose(PUBLIC_ONLY)
    first = run(config, "mine")
    with rejects("folder", "mine", "finished"):
        run(config, "mine")
    again = run(config, "mine", keep_finished=True)
    assert first is not None
    assert again is not None
    assert (first.fresh, again.fresh) == (True, False)
    assert np.array_equal(again.samples.images, first.samples.images)


def test_an_evaluator_that_fails_is_an_error_and_the_release_stands(here, monkeypatch):
    config = compose([*PUBLIC_ONLY, "eval=default", "eval.downstream.enabled=false"])
    with monkeypatch.context() as patch:
        patch.setattr("eval.distances.Frechet.evaluate", Mock(side_effect=ZeroDivisionError("covariance")))
        with pytest.raises(EvaluationError, match="frechet: ZeroDivisionError: covariance"):
            run(config, "mine")
    assert Path("mine/release/samples.npz").exists()
    text = Path("mine/internal/error.txt").read_text()
    assert "ZeroDivisionError: covariance" in text
    assert "in run_evaluators" in text  # where it broke, not only that it did
    assert run(config, "mine") is not None
    assert not Path("mine/internal/error.txt").exists()


def test_a_method_that_has_not_spent_what_its_plan_says_releases_nothing(here, monkeypatch):
    made = SampleSet(np.zeros((50, 8, 8, 1), np.uint8), np.arange(50) % 10, 10)
    monkeypatch.setattr("pe.evolution.PrivateEvolution.run", lambda *_: made)
    with pytest.raises(BudgetError, match=r"purpose=pe\.votes"):
        run(compose(QUICK), "mine")
    assert not list(Path("mine").glob("release/*"))


def test_a_crash_leaves_its_traceback_and_the_command_that_goes_on(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(running, "publish", Mock(side_effect=ValueError("out of range")))
        with pytest.raises(ValueError, match="out of range"):  # of our own code: no user's mistake
            call(*QUICK, "seed=3")
    text = Path("run/internal/error.txt").read_text()
    assert "Traceback" in text
    assert "ValueError: out of range" in text
    command = shlex.split(next(line for line in text.splitlines() if "python run.py" in line))
    assert "seed=3" in command
    assert call(*command[2:]).code == 0
    assert not Path("run/internal/error.txt").exists()


def test_a_users_mistake_leaves_no_error_file(here):
    assert call(*PUBLIC_ONLY).code == 0
    assert call(*PUBLIC_ONLY).code == 2
    assert not Path("run/internal/error.txt").exists()


def test_a_traceback_of_a_users_mistake_is_shown_where_the_environment_asks_for_it(here, monkeypatch):
    assert "Traceback" not in call("method.iterations=0").err
    monkeypatch.setenv("DP_SYNTHESIS_TRACEBACK", "1")
    refused = call("method.iterations=0")
    assert refused.code == 2
    assert "Traceback" in refused.err


def test_what_was_spent_before_is_in_the_ledger_of_whoever_opens_a_session(tmp_path):
    from pipeline.plan import Plan
    from privacy.config import Privacy
    from privacy.inherited import Inherited
    from privacy.mechanisms import Gaussian, Spend
    from privacy.noise import NoiseSource
    from tests.toy import toy

    base = Spend("base:ab12.dp_sgd", Gaussian(2.0), 3)
    plan = Plan([base], None, 1.0, 1e-5, Inherited([base]))
    session = Session.open(toy([(0, 0)], [3]), Privacy(epsilon=1.0), plan, NoiseSource(bytes(32)), tmp_path)
    assert session.ledger.spends == [base]


def test_the_pipeline_and_the_store_know_no_hydra():
    import subprocess

    from tests.command import ROOT

    told = subprocess.run(
        [sys.executable, "-c", "import pipeline, store.sweep, sys; sys.exit('hydra' in sys.modules)"], cwd=ROOT, check=False
    )
    assert told.returncode == 0
