"""The best of a sweep's settings, for a price: K runs, each of a candidate at random and scored under DP; the best is released.

K comes from a distribution that everybody knows, and is a secret, as is all that the other runs made: Papernot & Steinke (2022),
`privacy.selection`. A run is one mechanism, its score included; which one is released follows from the scores alone.

    internal/noise.key                 of K, of which candidate each run takes, and of the keys of the runs
    internal/runs/0, 1, …              the runs, each with a ledger of its own; their samples are under internal/ there
    internal/runs/0/internal/score.json
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.samples import SampleSet
from data.shards import open_release, read_samples, save_release
from disk import private_folder, write_json
from errors import InputError, reject_unless, require, unusable
from eval.evaluator import EvaluationContext
from models.api import KeepsState
from pipeline.config import Config
from pipeline.evaluate import evaluate, evaluation_context
from pipeline.failure import working_in
from pipeline.plan import Plan
from pipeline.plan_document import plan_document
from pipeline.release import publish
from pipeline.resume import already_finished, begin, begin_evaluation, keep_apart, require_own_folder, tell
from pipeline.running import Result
from pipeline.session import Session
from privacy.accounting import Accountant, compose_epsilon
from privacy.config import PrivateSelection, ScoredOn
from privacy.inherited import Inherited, PublicInput
from privacy.mechanisms import BestOf, DiscreteGaussian, Spend
from privacy.noise import NoiseSource
from privacy.risk import risk
from store.identity import plain
from store.run_dir import RunDir
from tracking.memory import forget_peak
from tracking.progress import console
from tracking.settings import flat
from tracking.tracker import Several, finishing

BEST, SCORE = "best_of", "score"  # purposes
NEAR = 1e-3  # of the target epsilon: how much of it may be left
_DIFFER = "the candidates of selection=private differ in method and model alone"
_SEEDS = f"{_DIFFER}: a seed is no setting, and every run draws noise of its own"


@dataclass(frozen=True)
class Candidate:
    """Settings, and the same ones at another privacy.epsilon, from which others may follow."""

    config: Config
    at: Callable[[float], Config]


@dataclass
class Selecting:
    """A selection with its candidates: `config` is that of the first one, and says what differs in the others."""

    config: Config
    candidates: list[Candidate]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Selecting:
        """InputError for settings that are no candidates of one selection."""
        for candidate in candidates:
            _check(candidate.config)
        described = [flat(plain(candidate.config)) for candidate in candidates]
        keys = sorted({key for one in described for key in one})
        differing = [key for key in keys if any(one.get(key) != described[0].get(key) for one in described)]
        for key in differing:
            other = next(one.get(key) for one in described if one.get(key) != described[0].get(key))
            reject_unless(key.startswith(("method.", "model.")), key, other, _SEEDS if key == "seed" else _DIFFER)
        told = [{key: one[key] for key in differing if key in one} for one in described]
        order = sorted(range(len(told)), key=lambda i: json.dumps(told[i], sort_keys=True))
        told, chosen = [told[i] for i in order], [candidates[i] for i in order]
        distinct = len({json.dumps(one, sort_keys=True) for one in told})
        require(distinct == len(told) > 1, "selection", "private", "of a sweep of 2 different settings or more, with -m")
        first = chosen[0].config
        assert first.selection is not None
        return cls(replace(first, selection=replace(first.selection, candidates=told)), chosen)

    @property
    def settings(self) -> PrivateSelection:
        assert self.config.selection is not None
        return self.config.selection

    @property
    def score(self) -> list[Spend]:
        """What a score spends; the noise is on a count of units."""
        if self.settings.score is ScoredOn.public:
            return []
        return [Spend(SCORE, DiscreteGaussian(self.settings.score_noise * self.config.dataset.num_private))]

    @property
    def public_inputs(self) -> list[PublicInput]:
        """Of all candidates, as all of them decide what is released; each is named once, by its setting or by a number more."""
        found: dict[PublicInput, str] = {}
        for candidate in self.candidates:
            for one in candidate.config.public_inputs():
                one = replace(one, files=tuple(one.files))
                if one not in found:
                    before = sum(other.key == one.key for other in found)
                    found[one] = f"{one.key} ({before + 1})" if before else one.key
        return [replace(one, key=key) for one, key in found.items()]

    @property
    def inherited(self) -> Inherited:
        """What the public inputs of all candidates have spent."""
        config, flags = self.config, {one.config.model.base_is_other_data for one in self.candidates}
        require(len(flags) == 1, "model.base_is_other_data", True, "the same for all candidates of selection=private")
        return Inherited.of(self.public_inputs, flags.pop(), config.dataset.name, config.privacy.unit)

    def at(self, epsilon: float | None) -> list[Config]:
        """The candidates as runs of their own, with this budget each; None: with the noise that is fixed."""
        return [replace(one.config if epsilon is None else one.at(epsilon), selection=None) for one in self.candidates]


def _check(config: Config) -> None:
    config.check()
    settings, privacy, downstream, dataset = config.selection, config.privacy, config.eval.downstream, config.dataset
    assert settings is not None
    settings.check()
    require(not settings.candidates, "selection.candidates", settings.candidates, "empty, as they are the settings of the sweep")
    require(privacy.accountant is Accountant.rdp, "privacy.accountant", privacy.accountant, "rdp with selection=private")
    require(privacy.noise_seed is None, "privacy.noise_seed", privacy.noise_seed, "null with selection=private")
    share, allowed = privacy.selection_epsilon, "null with selection=private, which has a price of its own"
    require(share is None, "privacy.selection_epsilon", share, allowed)
    problem = "it adds no noise, and only private runs are candidates of selection=private"
    reject_unless(config.method.needs_noise, "method", config.method.name, problem)
    problem = "it releases a classifier, and selection=private scores samples"
    reject_unless(config.method.released_classifier is None, "method", config.method.name, problem)
    require(downstream.enabled, "eval.downstream.enabled", downstream.enabled, "true with selection=private, whose score it is")
    classes = config.method.conditional and len(dataset.classes) > 1
    reject_unless(classes, "selection", "private", "samples of one class train no classifier to score them by")
    if settings.score is ScoredOn.public:
        same = dataset.num_public > 0 and dataset.public_classes == dataset.classes
        allowed = f"private, as dataset={dataset.name} has no public images of its classes"
        require(same, "selection.score", settings.score, allowed)


@dataclass
class SelectionPlan:
    whole: Plan  # what all of it spends
    configs: list[Config]  # of the candidates, with the budget of a run
    runs: list[Plan]  # of each of them: one run, with its score

    @property
    def best(self) -> BestOf:
        mechanism = self.whole.spends[-1].mechanism
        assert isinstance(mechanism, BestOf)
        return mechanism

    @property
    def differing(self) -> list[dict[str, Any]]:
        """The settings of each candidate that are not those of all, with the budget of a run."""
        described = [flat(plain(config)) for config in self.configs]
        keys = sorted({key for one in described for key in one})
        shared = {key for key in keys if all(key in one and one[key] == described[0].get(key) for one in described)}
        return [{key: one[key] for key in keys if key in one and key not in shared} for one in described]

    def facts(self, selecting: Selecting) -> dict[str, Any]:
        """For plan and certificate."""
        classifier, score = selecting.config.eval.downstream.classifier.value, selecting.score
        on = selecting.settings.score.value
        return {
            "candidates": self.differing,
            "number_of_candidates": len(self.configs),
            **self.best.runs.to_dict(),
            "expected_runs": self.best.runs.mean,
            "score": f"accuracy on {on} images of {classifier}, trained on the samples",
            "score_mechanism": score[0].mechanism.to_dict() if score else None,
        }

    @classmethod
    def of(cls, selecting: Selecting) -> SelectionPlan:
        """A run's own epsilon is the same for all candidates, and such that everything together comes to privacy.epsilon."""
        config, target = selecting.config, selecting.config.privacy.epsilon
        inherited, alone = selecting.inherited, 0.0
        if target is not None and inherited.spends:
            alone = compose_epsilon(inherited.spends, config.delta, Accountant.rdp)
            allowed = f"above the {alone:.4g} that public inputs have spent already ({inherited.told})"
            require(alone < (1 - NEAR) * target, "privacy.epsilon", target, allowed)
        own = target
        while True:
            found = cls._at(selecting, inherited, own)
            total = found.whole.epsilon
            if target is None or own is None or total <= target:
                return found
            own *= (1 - NEAR / 2) * (target - alone) / (total - alone)
            if own < NEAR * target:
                mean = found.best.runs.mean
                problem = f"the best of {mean:.3g} expected runs costs {total:.3g}, were their noise ever so large"
                raise unusable("privacy.epsilon", target, problem)

    @classmethod
    def _at(cls, selecting: Selecting, inherited: Inherited, own: float | None) -> SelectionPlan:
        configs, score, privacy = selecting.at(own), selecting.score, selecting.config.privacy
        try:
            runs = [Plan.make(one.method, one.dataset, one.privacy, become=lambda spends: [*spends, *score]) for one in configs]
        except InputError as error:
            if error.key != "privacy.epsilon" or own == privacy.epsilon:
                raise
            raise unusable("privacy.epsilon", privacy.epsilon, f"a run may spend {own:.3g} of it, and {error}") from error
        best = BestOf(selecting.settings.runs, tuple(tuple(plan.spends) for plan in runs))
        spends = [*inherited.spends, Spend(BEST, best)]
        whole = Plan(spends, None, compose_epsilon(spends, runs[0].delta, Accountant.rdp), runs[0].delta, inherited)
        return cls(whole, configs, [_after(inherited, plan) for plan in runs])


def _after(inherited: Inherited, plan: Plan) -> Plan:
    spends = [*inherited.spends, *plan.spends]
    epsilon = compose_epsilon(spends, plan.delta, Accountant.rdp)
    return replace(plan, spends=spends, epsilon=epsilon, inherited=inherited)


def selection_document(selecting: Selecting) -> dict[str, Any]:
    """What `plan_only=true` prints: of the whole, and of a run of each candidate."""
    plan, config = SelectionPlan.of(selecting), selecting.config
    documents = [plan_document(one, of) for one, of in zip(plan.runs, plan.configs, strict=True)]
    runs, names = plan.best.runs, selecting.settings.candidates
    seconds = [document["work"]["seconds"] for document in documents]
    known = [value for value in seconds if value is not None]
    others = 1 - 1 / len(documents)
    return {
        "selection": {
            **plan.facts(selecting),
            "probability_of_no_release": runs.generating(0.0),
            "runs_in_99_of_100": runs.quantile(0.99),
            "probability_that_a_candidate_runs": round(1 - runs.generating(others), 3),
            "expected_seconds": runs.mean * sum(known) / len(known) if len(known) == len(seconds) else None,
        },
        "privacy": {
            "epsilon": plan.whole.epsilon,
            "delta": plan.whole.delta,
            "accountant": Accountant.rdp.value,
            "unit": config.privacy.unit.value,
            "neighbouring": config.privacy.unit.neighbouring,
            "events": [spend.to_dict() for spend in plan.whole.spends],
            "risk": risk(plan.whole.spends, plan.whole.delta),
        },
        "runs": [{"candidate": name, **document} for name, document in zip(names, documents, strict=True)],
    }


def run_selection(selecting: Selecting, folder: RunDir, goes_on_with: str = "") -> Result | None:
    """All of it in the directory `folder`; the same selection goes on there, or is found finished. None where K was 0.

    InputError for settings that cannot run; EvaluationError where an evaluator failed after the release.
    """
    with working_in(folder, goes_on_with):
        return _run(selecting, folder)


def _run(selecting: Selecting, folder: RunDir) -> Result | None:
    config, dataset = selecting.config, selecting.config.dataset
    plan, load = SelectionPlan.of(selecting), functools.cache(dataset.private)
    if already_finished(folder, config):
        return Result(_chosen(plan, folder, config), folder, fresh=False)
    require_own_folder(folder, config)
    forget_peak()
    dataset.prepare()
    config.judging.prepare(dataset)
    for one in plan.configs:
        one.model.prepare(one.method.embeddings())
        one.spaces.prepare(one.judging.embeddings())
    inputs, device = selecting.public_inputs, config.torch_device
    keep_apart(dataset, inputs, load, opens=True)
    if not begin(folder, config, plan.whole, config.privacy, load, device, inputs, keep_finished=True):
        return Result(_chosen(plan, folder, config), folder, fresh=False)
    if folder.output is None:
        for note in dataset.notes():
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        key = folder.noise_key
        session = Session.of_run(dataset, config.privacy, plan.whole, folder, Several(), load, config.seed, device, key)
        session.ledger.spend(BEST, plan.best)
        secret = NoiseSource.for_run(folder.noise_key, None)
        places = _places(plan, folder.making, secret)
        if not places:
            return None
        scores = [_scored(selecting, plan, which, place, secret, load) for which, place in places]
        which, place = places[scores.index(max(scores))]  # the first of equals: runs are alike, so it might be any of them
        _publish(selecting, plan, which, place, max(scores), session, folder)
    chosen = _chosen(plan, folder, config)
    fresh = begin_evaluation(folder, config)
    if fresh:
        model = chosen.model.build(dataset, chosen.torch_device, chosen.seed)
        with finishing(chosen.tracker.build(folder.path, plain(chosen), folder.making.path)) as tracker:
            evaluate(chosen, model, chosen.torch_device, folder, tracker)
    return Result(chosen, folder, fresh)


def _chosen(plan: SelectionPlan, folder: RunDir, config: Config) -> Config:
    """The candidate that was released, with the budget of everything."""
    document = folder.certificate
    assert document is not None
    told = document["selection"]["chosen"]
    found = [one for one, differs in zip(plan.configs, plan.differing, strict=True) if differs == told]
    problem = "its release was chosen among other settings: what follows from epsilon may have moved with another version"
    reject_unless(bool(found), folder.key, folder.path, problem)
    return replace(found[0], privacy=config.privacy)


def _places(plan: SelectionPlan, folder: RunDir, secret: NoiseSource) -> list[tuple[int, RunDir]]:
    """Which candidate each of the K runs takes, and where: from the secret key, so that it is the same after a kill."""
    count = plan.best.runs.quantile(float(secret.stream("selection/runs").uniform(1)[0]))
    draws = secret.stream("selection/candidates")
    return [(draws.below(len(plan.configs)), RunDir(folder.internal / "runs" / str(number))) for number in range(count)]


def _scored(
    selecting: Selecting, plan: SelectionPlan, which: int, folder: RunDir, secret: NoiseSource, load: Callable[[], SampleSet]
) -> float:
    """One run, or what is missing of it: its score, with noise. Nothing else of it is looked at."""
    kept = folder.internal / "score.json"
    if kept.exists():
        return json.loads(kept.read_text())
    config, own, device = plan.configs[which], plan.runs[which], plan.configs[which].torch_device
    tell(folder, f"a run of {plan.differing[which]}")
    if not folder.noise_key.exists():
        private_folder(folder.internal)
        secret.part(f"selection/run={folder.path.name}").save(folder.noise_key)
    begin(folder, config, own, config.privacy, load, device, config.public_inputs())
    session = Session.of_run(config.dataset, config.privacy, own, folder, Several(), load, config.seed, device)
    model = config.model.build(config.dataset, device, config.seed)
    if folder.output is None:
        if isinstance(model.api, KeepsState):
            model.api.kept = folder.checkpoints
        samples = config.method.run(session.private, model, session.run)
        assert isinstance(samples, SampleSet)
        folder.publish(functools.partial(_keep, samples, session), private=False)
        write_json(folder.cost, session.run.meter.taken())
    assert folder.output is not None
    context = evaluation_context(config, open_release(folder.output, config.dataset), model, device, folder)
    score = _score(selecting, session, config, context)
    write_json(kept, score)
    folder.close()
    return score


def _keep(samples: SampleSet, session: Session, folder: Path) -> None:
    """Without a certificate: a run alone is not for release."""
    save_release(samples, folder)
    if session.run.save_model:
        session.run.save_model(folder / "model")


def _score(selecting: Selecting, session: Session, config: Config, context: EvaluationContext) -> float:
    downstream, size = config.eval.downstream, config.dataset.num_private
    if not selecting.score:
        images = context.public
        return downstream.right_of(context, images) / len(images)
    (spend,) = selecting.score
    assert isinstance(spend.mechanism, DiscreteGaussian)
    images = session.private.spend(SCORE, spend.mechanism)
    noise = session.run.noise.stream(SCORE).discrete_gaussian(spend.mechanism.noise_multiplier, 1)
    return (downstream.right_of(context, images) + int(noise[0])) / size


def _publish(
    selecting: Selecting, plan: SelectionPlan, which: int, best: RunDir, score: float, session: Session, folder: RunDir
) -> None:
    """The best run's samples and model, with a certificate of all that was spent."""
    assert best.output is not None
    config = replace(plan.configs[which], privacy=selecting.config.privacy)
    if (model := best.output / "model").exists():
        session.run.save_model = functools.partial(shutil.copytree, model)
    told = {**plan.facts(selecting), "chosen": plan.differing[which], "score_of_chosen": score}
    samples = read_samples(best.output)
    publish(samples, None, config, plan.whole, selecting.public_inputs, session, folder, {"selection": told})
