"""One run, from settings to a release, its certificate and its evaluation."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from data.samples import SampleSet
from errors import unusable
from method import Made
from models.api import KeepsState
from models.classifiers.released import ReleasedClassifier
from models.public.settings import PublicModel
from pipeline.config import Config
from pipeline.contents import open_contents
from pipeline.evaluate import evaluate, evaluation_context
from pipeline.failure import working_in
from pipeline.plan import Plan
from pipeline.release import publish, select
from pipeline.resume import already_finished, begin, begin_evaluation, keep_apart, require_like_nodes, require_own_folder
from pipeline.session import Session
from privacy.inherited import PublicInput
from store.identity import plain
from store.run_dir import RunDir
from tracking import ranks
from tracking.memory import forget_peak
from tracking.progress import console
from tracking.tracker import Several, Tracker, finishing

_Made = TypeVar("_Made", SampleSet, ReleasedClassifier)


@dataclass
class Result:
    """What a finished run left in its directory `path`."""

    config: Config = field(repr=False)
    folder: RunDir = field(repr=False)
    fresh: bool = True  # False: it was finished before

    @property
    def path(self) -> Path:
        return self.folder.path

    @functools.cached_property
    def made(self) -> Made:
        """What was released, or, of a run that is not private, what is not for release."""
        assert self.folder.output is not None
        return open_contents(self.folder.output, self.config.dataset)

    @property
    def samples(self) -> SampleSet:
        """InputError where a classifier was released."""
        return self._made(SampleSet, "it releases a classifier and no samples")

    @property
    def classifier(self) -> ReleasedClassifier:
        """InputError where samples were released."""
        return self._made(ReleasedClassifier, "it releases samples and no classifier")

    def _made(self, kind: type[_Made], problem: str) -> _Made:
        made = self.made
        if not isinstance(made, kind):
            raise unusable("method", self.config.method.name, problem)
        return made

    @functools.cached_property
    def certificate(self) -> dict[str, Any]:
        document = self.folder.certificate
        assert document is not None
        return document

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        return json.loads(self.folder.metrics.read_text())


def run(config: Config, folder: Path | str | RunDir, *, keep_finished: bool = False, goes_on_with: str = "") -> Result | None:
    """One run in the directory `folder`: a fresh one, or the same run goes on there.

    `keep_finished`: a run that is finished is returned as it is (else: InputError). `goes_on_with`: the command that goes on
    after a crash, for internal/error.txt. None for another process than the first one of several.

    InputError for settings that cannot run; EvaluationError where an evaluator failed after the release.
    """
    place = folder if isinstance(folder, RunDir) else RunDir(Path(folder), key="folder")
    with working_in(place, goes_on_with):
        return _run(config, place, keep_finished)


def _run(config: Config, folder: RunDir, keep_finished: bool) -> Result | None:
    config.check()
    first = ranks.rank() == 0
    finished = first and keep_finished and already_finished(folder, config)
    if finished and ranks.launched() == 1:
        return Result(config, folder, fresh=False)
    starts = first and not finished
    if starts:
        require_own_folder(folder, config)
    forget_peak()
    plan, load = Plan.of(config), functools.cache(config.dataset.private)
    inputs = _prepared(config) if starts else []
    if starts:
        config.judging.prepare(config.dataset)
        keep_apart(config.dataset, inputs, load, opens=bool(plan.spends))  # bad images are told before a wait
        finished = not begin(folder, config, plan, config.privacy, load, config.torch_device, inputs, keep_finished)
    device = ranks.start(config.torch_device)
    path, finished, released = ranks.broadcast((folder.path, finished, folder.output is not None))
    folder = folder if first else RunDir(path)
    if finished:  # perhaps meanwhile, by another process
        ranks.stop()
        return Result(config, folder, fresh=False) if first else None
    inputs = inputs if first else _prepared(config)
    if not released:
        require_like_nodes(folder, plan, load, device, inputs)
    build = functools.partial(config.tracker.build, folder.path, plain(config), folder.making.path)
    tracker: Tracker | None = None  # until it is needed and the lock is held: a W&B run has one process
    model = config.model.build(config.dataset, device, config.seed)
    with ExitStack() as ends:
        if not released:
            tracker = ends.enter_context(finishing(build() if first else Several()))
            _make(config, plan, inputs, folder, tracker, load, model, device)
        ranks.stop()
        if not first:
            return None
        fresh = begin_evaluation(folder, config)
        if fresh:
            tracker = tracker or ends.enter_context(finishing(build()))
            evaluate(config, model, device, folder, tracker)
    return Result(config, folder, fresh)


def _prepared(config: Config) -> list[PublicInput]:
    """The public inputs, when all files that a run reads are there."""
    config.dataset.prepare()
    config.model.prepare(config.method.embeddings())
    config.spaces.prepare(config.judging.embeddings())
    return config.public_inputs()


def _make(
    config: Config,
    plan: Plan,
    inputs: Sequence[PublicInput],
    folder: RunDir,
    tracker: Tracker,
    load: Callable[[], SampleSet],
    model: PublicModel,
    device: torch.device,
) -> None:
    """The release, by all processes together; the first one writes it."""
    own = folder.of_rank(ranks.rank())
    ranks.wait()  # until nobody copies what rank 0 is about to change
    hints = plan.hints(config.method, config.dataset, config.model, config.privacy)
    for note in [*config.dataset.notes(), *config.notes(), *hints] if own is folder else []:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    session = Session.of_run(config.dataset, config.privacy, plan, own, tracker, load, config.seed, device, key=folder.noise_key)
    if isinstance(model.api, KeepsState):
        model.api.kept = own.checkpoints
    made = config.method.run(session.private, model, session.run)
    if own is folder:
        judged = functools.partial(evaluation_context, config, model=model, device=device, folder=folder)
        selected = select(made, session, config, folder, lambda samples: judged(made=samples))
        session.ledger.require_all_spent()
        publish(made, selected, config, plan, inputs, session, folder)
