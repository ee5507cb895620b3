"""`+selection=private`: what is refused, what a plan says, what is released and what never is, and a kill in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.compose import to_typed
from data.samples import SampleSet
from models.embedded import embedded_or
from pipeline.config import Config
from pipeline.selection import Candidate, Selecting, SelectionPlan, run_selection
from privacy.accounting import Accountant, compose_epsilon
from privacy.inherited import Inherited, PublicInput
from privacy.ledger import read_entries
from privacy.mechanisms import BestOf, DiscreteGaussian, Gaussian, Spend
from privacy.noise import NoiseSource
from scripts import verify
from store.identity import digest
from store.run_dir import RunDir
from store.sweep import Sweep
from tests.command import bytes_of, call, composed, fork, fork_run
from tests.rejects import ANY, assert_refused, rejects

JUDGED = ["+selection=private", "tuned=none", "eval.frechet.enabled=false", "selection.expected_runs=3", "device=cpu"]
JUDGED += ["eval.downstream.classifier=cnn", "eval.downstream.steps=2", "eval.downstream.batch_size=8"]
MERF = ["method=dp_merf", "method.num_samples=20", "method.num_features=10", "method.length_scale=1", "method.batch_size=20"]
PRIVATE = [*JUDGED, *MERF]
SWEEP = ["hydra.mode=MULTIRUN", *PRIVATE, "method.steps=1,2"]


def candidate(*overrides: str) -> Candidate:
    mine = [*JUDGED, *overrides] if any(one.startswith("method=") for one in overrides) else [*PRIVATE, *overrides]

    def at(epsilon: float) -> Config:
        changed = composed(*mine)
        changed.privacy.epsilon = epsilon
        return to_typed(changed)

    return Candidate(to_typed(composed(*mine)), at)


def selecting(*overrides: str) -> Selecting:
    return Selecting.of([candidate(f"method.steps={steps}", *overrides) for steps in (1, 2)])


def prepared(folder: Path, wanted: list[int], *overrides: str) -> RunDir:
    """Where the selection will lie, with a secret key that draws the candidates that are wanted."""
    what = selecting(*overrides)
    runs, place = what.settings.runs, RunDir(folder / "runs" / "by_config" / digest(what.config))
    for number in range(1 << 16):
        secret = NoiseSource(number.to_bytes(32, "big"))
        if runs.quantile(float(secret.stream("selection/runs").uniform(1)[0])) == len(wanted):
            draws = secret.stream("selection/candidates")
            if [draws.below(2) for _ in wanted] == wanted:
                break
    place.making.internal.mkdir(parents=True)
    secret.save(place.noise_key)
    return place


# What is released


@pytest.fixture(scope="module")
def selected(tmp_path_factory) -> tuple[RunDir, str]:
    """A finished selection of three runs, and what the command said."""
    folder = tmp_path_factory.mktemp("selected")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        place = prepared(folder, [1, 0, 1])
        result = call(*SWEEP, "hydra.sweep.dir=sweep")
        assert result.code == 0, result.err
        again = call(*SWEEP, "hydra.sweep.dir=sweep")
        assert (again.code, again.err.count("finished before, kept")) == (0, 1)
    return place, result.out


def test_the_certificate_has_all_of_it(selected):
    place, _ = selected
    document: Any = place.certificate
    runs, configs = document["selection"], SelectionPlan.of(selecting())
    assert document["private"]
    assert 0.995 * 10 < document["epsilon"] <= 10 == document["epsilon_target"]
    (spend,) = map(Spend.from_dict, document["mechanisms"])
    assert compose_epsilon([spend], document["delta"], Accountant.rdp) == pytest.approx(document["epsilon"])
    assert spend == configs.whole.spends[0]
    assert isinstance(spend.mechanism, BestOf)
    score = Spend("score", DiscreteGaussian(0.01 * 1437))
    assert [spends[-1] for spends in spend.mechanism.candidates] == [score] * 2
    assert (runs["number_of_candidates"], runs["expected_runs"], runs["eta"], runs["gamma"]) == (2, pytest.approx(3), 1, 1 / 3)
    assert runs["candidates"] == [{"method.steps": steps} for steps in (1, 2)]
    assert runs["chosen"] in runs["candidates"]
    assert document["risk"]["accountant"] == "rdp"


def test_only_the_best_is_released(selected):
    place, _ = selected
    runs = [RunDir(place.making.internal / "runs" / str(number)) for number in range(3)]
    scores = [json.loads((run.internal / "score.json").read_text()) for run in runs]
    best = runs[scores.index(max(scores))]
    released = SampleSet.load(place.release / "samples.npz")
    assert (SampleSet.load(best.withheld / "samples.npz").images == released.images).all()
    everything = [path for path in place.path.parent.rglob("release") if path.exists()]
    assert {path.resolve() for path in everything} == {place.release.resolve()}
    assert {path.name for path in place.release.iterdir()} == {
        "samples.npz",
        "grid.png",
        "privacy.json",
        "README.md",
        "croissant.json",
    }
    assert yaml.safe_load(best.config.read_text())["method"]["steps"] == place.certificate["selection"]["chosen"]["method.steps"]  # type: ignore[index]
    assert not any(run.finished for run in runs)  # none was evaluated
    assert list(read_entries(place.ledger)) == ["best_of"]
    assert [list(read_entries(run.ledger)) for run in runs] == [["mean_embedding", "score"]] * 3
    text = (place.release / "README.md").read_text()
    assert "best of several attempts with 2 settings" in text
    assert "3 runs" not in text


def test_nobody_learns_how_many_runs_there_were(selected):
    """Nor what the others scored: no file of the release changes with them."""
    place, out = selected
    scores = [
        (place.making.internal / "runs" / str(number) / "internal" / "score.json").read_text().strip() for number in range(3)
    ]
    told = place.certificate["selection"]  # type: ignore[index]
    assert {"candidates", "number_of_candidates", "distribution", "eta", "gamma", "expected_runs", "score"} <= told.keys()
    assert told.keys() - {"score_mechanism", "chosen", "score_of_chosen"} == {
        "candidates", "number_of_candidates", "distribution", "eta", "gamma", "expected_runs", "score",
    }  # fmt: skip
    lost = sorted(scores, key=float)[:-1]
    shared = "".join(path.read_text() for path in place.release.iterdir() if path.suffix in (".json", ".md"))
    assert not any(score in shared + out for score in lost if score != json.dumps(told["score_of_chosen"]))


def test_it_verifies(selected, capsys):
    verify.main([f"release={selected[0].release}"])
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert "selection: of 2 candidates" in out
    assert "No choice but those that are listed" in out


def test_a_finished_one_is_given_back_with_the_settings_that_were_chosen(selected):
    place, _ = selected
    result = run_selection(selecting(), RunDir(place.path))
    assert result is not None
    assert not result.fresh
    assert result.config.method.steps == place.certificate["selection"]["chosen"]["method.steps"]  # type: ignore[attr-defined]
    assert result.config.privacy.epsilon == 10


def test_a_sweep_counts_it_as_one_release(selected):
    place, _ = selected
    sweep = Sweep(place.path.parents[2] / "sweep")
    assert [path.resolve() for path in sweep.began] == [place.path]
    (found,) = sweep.composed()
    assert found["epsilon"] == pytest.approx(place.certificate["epsilon"])  # type: ignore[index]


def test_what_starts_from_it_inherits_the_whole(selected, tmp_path):
    """As weights of it would, whose folder has its certificate."""
    document = json.loads((selected[0].release / "privacy.json").read_text())
    (tmp_path / "privacy.json").write_text(json.dumps(document))
    found = Inherited.of([PublicInput("model.pretrained", tmp_path)])
    assert [spend.purpose for spend in found.spends] == [f"base:{document['id']}.best_of"]
    more = compose_epsilon([*found.spends, Spend("moments", Gaussian(1.0))], document["delta"])
    assert more > document["epsilon"]
    with rejects("model.pretrained", ANY, "internal"):
        Inherited.of(
            [PublicInput("model.pretrained", selected[0].making.internal / "runs" / "0" / "internal" / "not_for_release")]
        )


# A kill


def test_a_killed_selection_ends_in_the_same_release(tmp_path):
    """Killed in a run, and again before the release."""
    killed = prepared(tmp_path / "killed", [1, 0])
    runs = killed.making.internal / "runs"
    fork(tmp_path / "killed", *SWEEP).kill_when((runs / "1" / "internal" / "ledger.jsonl").exists)
    fork(tmp_path / "killed", *SWEEP).kill_when((killed.making.internal / "release.partial" / "samples.npz").exists)
    assert not killed.release.exists()
    result = fork_run(tmp_path / "killed", *SWEEP)
    assert result.code == 0, result.err
    whole = prepared(tmp_path / "whole", [1, 0])
    assert fork_run(tmp_path / "whole", *SWEEP).code == 0
    assert bytes_of(killed.release) == bytes_of(whole.release)
    assert len(read_entries(killed.ledger)) == 1
    assert sorted(path.name for path in runs.iterdir()) == ["0", "1"]


def test_no_run_at_all_releases_nothing_and_says_so(here):
    poisson = ["selection.distribution=poisson", "selection.expected_runs=1.5"]
    place = prepared(here, [], *poisson)
    result = call(*SWEEP, *poisson, "hydra.sweep.dir=sweep")
    assert result.code == 1
    assert "came out as 0" in result.err
    assert place.output is None
    assert list(read_entries(place.ledger)) == ["best_of"]


# Plans


def test_a_plan_says_what_all_of_it_costs_and_opens_nothing(here):
    result = call(*SWEEP, "plan_only=true", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    (spend,) = map(Spend.from_dict, document["privacy"]["events"])
    assert document["privacy"]["epsilon"] == pytest.approx(compose_epsilon([spend], 6.9e-5, Accountant.rdp))
    assert 9.95 < document["privacy"]["epsilon"] <= 10
    told = document["selection"]
    assert (told["expected_runs"], told["probability_of_no_release"], told["runs_in_99_of_100"]) == (pytest.approx(3), 0, 12)
    assert told["probability_that_a_candidate_runs"] == 0.75
    assert [run["candidate"] for run in document["runs"]] == told["candidates"]
    assert all(5 < run["privacy"]["epsilon"] < 8 for run in document["runs"])
    assert list(here.iterdir()) == []


def test_each_candidate_has_the_budget_of_a_run_and_what_follows_from_it():
    """Five rounds of votes have more noise each than one; a share of epsilon is one of the run's."""
    votes = [
        candidate("method=pe", "model=digits_unet", f"method.iterations={n}", f"method.variation_degrees=[{','.join('2' * n)}]")
        for n in (1, 5)
    ]
    plan = SelectionPlan.of(Selecting.of(votes))
    assert plan.whole.epsilon <= 10 < 1.005 * plan.whole.epsilon
    few, many = (run.noise_multiplier for run in plan.runs)
    assert few is not None
    assert many is not None
    assert many > 2 * few
    assert plan.runs[0].epsilon == pytest.approx(plan.runs[1].epsilon, rel=1e-4)
    shares = ["method.warm_up.epsilon=${part_of_epsilon:0.5,1}", "method.warm_up.degree=3", "method.initial_labels=matching"]
    plan = SelectionPlan.of(Selecting.of([candidate("method=pe", *shares, f"method.threshold={n}") for n in (0, 1)]))
    assert plan.configs[0].method.warm_up.epsilon == pytest.approx(plan.runs[0].epsilon / 2, rel=1e-2)  # type: ignore[attr-defined]


def test_noise_that_is_fixed_stays_and_epsilon_follows():
    plan = SelectionPlan.of(selecting("privacy.epsilon=null", "privacy.noise_multiplier=3"))
    assert [run.noise_multiplier for run in plan.runs] == [3.0] * 2
    assert plan.best.candidates[0][0] == Spend("mean_embedding", Gaussian(3.0))


def test_a_score_on_public_images_is_no_spend():
    what = selecting("selection.score=public")
    assert [spend.purpose for spends in SelectionPlan.of(what).best.candidates for spend in spends] == ["mean_embedding"] * 2
    assert SelectionPlan.of(what).runs[0].epsilon > SelectionPlan.of(selecting("selection.score_noise=0.001")).runs[0].epsilon


def test_the_price_of_less_noise_on_the_score_is_counted():
    exact, blurred = (SelectionPlan.of(selecting(f"selection.score_noise={noise}")) for noise in (0.001, 0.1))
    assert exact.runs[0].noise_multiplier > 1.05 * blurred.runs[0].noise_multiplier  # type: ignore[operator]


def test_the_order_of_candidates_is_no_part_of_a_selection():
    first, second = candidate("method.steps=1"), candidate("method.steps=2")
    assert digest(Selecting.of([first, second]).config) == digest(Selecting.of([second, first]).config)
    names = {digest(selecting(*more).config)[:16] for more in ([], ["selection.eta=0"], ["eval.downstream.steps=3"], ["seed=1"])}
    assert len(names) == 4
    judged = digest(selecting("eval.membership.enabled=true").config).split("-")
    assert judged[0] == digest(selecting().config)[:16]


# Refusals


@pytest.mark.parametrize(
    ("overrides", "key", "word"),
    [
        ([["privacy.epsilon=1"], ["privacy.epsilon=2"]], "privacy.epsilon", "method and model alone"),
        ([["seed=0"], ["seed=1"]], "seed", "no setting"),
        ([["dataset.fraction=0.5"], []], "dataset.fraction", "method and model alone"),
        ([["eval.downstream.steps=3"], []], "eval.downstream.steps", "method and model alone"),
        ([["selection.eta=0"], []], "selection.eta", "method and model alone"),
        ([[], []], "selection", "2 different settings"),
        ([[]], "selection", "2 different settings"),
        ([["method=public_only"], []], "method", "no noise"),
        ([["method=dp_classifier"]], "method", "releases a classifier"),
        ([["privacy.accountant=pld"]], "privacy.accountant", "rdp"),
        ([["privacy.noise_seed=1"]], "privacy.noise_seed", "null"),
        ([["eval.downstream.enabled=false"]], "eval.downstream.enabled", "true"),
        ([["method.conditional=false"]], "selection", "one class"),
        ([["dataset.keep_classes=['3','5']", "selection.score=public"]], "selection.score", "private"),
        ([["selection.expected_runs=1"]], "selection.expected_runs", "above 1"),
        ([["selection.expected_runs=0.5", "selection.distribution=poisson"]], "selection.expected_runs", "1 or more"),
        ([["selection.eta=-0.95"]], "selection.eta", "from -0.9"),
        ([["selection.eta=11"]], "selection.eta", "to 10"),
        ([["selection.score_noise=0"]], "selection.score_noise", "1e-6"),
        ([["selection.candidates=[1]"]], "selection.candidates", "empty"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_are_no_candidates_of_one_selection_is_refused(overrides, key, word):
    found = [candidate(*each) for each in overrides]
    with rejects(key):
        Selecting.of(found)
    with pytest.raises(ValueError, match=word):
        Selecting.of(found)


def test_more_poisson_runs_than_can_be_drawn_are_refused():
    with rejects("selection.expected_runs", 701.0, "poisson"):
        SelectionPlan.of(selecting("selection.expected_runs=701", "selection.distribution=poisson"))


def test_what_any_candidate_starts_from_is_named_and_paid_for(tmp_path):
    spent = [{"purpose": "dp_sgd", "count": 1, "mechanism": "gaussian", "noise_multiplier": 20.0}]
    certificate = {"id": "ab12", "private": True, "epsilon": 0.3, "delta": 1e-5, "mechanisms": spent, "dataset": "digits"}
    for name in ("one", "two"):
        shutil.copytree(embedded_or("digits"), tmp_path / name)
    (tmp_path / "two" / "privacy.json").write_text(json.dumps(certificate))
    voted = ["method=pe", "tuned=none"]
    found = Selecting.of([candidate(*voted, f"model.pretrained={tmp_path / name}") for name in ("one", "two")])
    assert [(one.key, one.path.name) for one in found.public_inputs if "pretrained" in one.key] == [
        ("model.pretrained", "one"),
        ("model.pretrained (2)", "two"),
    ]
    plan = SelectionPlan.of(found)
    assert [spend.purpose for spend in plan.whole.spends] == ["base:ab12.dp_sgd", "best_of"]
    assert plan.whole.epsilon <= found.config.privacy.epsilon  # type: ignore[operator]
    other = candidate(*voted, f"model.pretrained={tmp_path / 'two'}", "model.base_is_other_data=true")
    with rejects("model.base_is_other_data"):
        SelectionPlan.of(Selecting.of([candidate(*voted, f"model.pretrained={tmp_path / 'one'}"), other]))


def test_a_budget_that_no_noise_meets_is_refused():
    with rejects("privacy.epsilon", 0.01):
        SelectionPlan.of(selecting("privacy.epsilon=0.01"))
    with rejects("privacy.epsilon", 1.0):
        SelectionPlan.of(selecting("privacy.epsilon=1", "selection.score_noise=0.0001"))


def test_the_command_refuses_in_one_line_before_any_work(here):
    assert_refused(call(*PRIVATE), "selection=private", "with -m")
    assert_refused(
        call("-m", *PRIVATE, "privacy.epsilon=1,2", "hydra.sweep.dir=sweep"), "privacy.epsilon=2.0", "method and model"
    )
    assert_refused(call(*SWEEP, "method.steps=0,1", "hydra.sweep.dir=sweep"), "method.steps")
    assert list(here.iterdir()) == []
