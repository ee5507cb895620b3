"""Try to refute a method's epsilon: an empirical lower bound, from real runs of it, beside what its ledger claims.

    python -m scripts.audit method=dp_diffusion                 # one training with 1,000 canaries
    python -m scripts.audit method=dp_loda canaries=2000
    python -m scripts.audit method=dp_diffusion base_noise_multiplier=0.5    # trained in two goes, the first with that noise
    python -m scripts.audit method=pe repetitions=4000          # a game of many tiny runs
    python -m scripts.audit method=dp_moments repetitions=4000        # or dp_merf, dp_mepf
    python -m scripts.audit method=… dataset=… model=… privacy.epsilon=… method.steps=… out=…

The bound holds with the stated `confidence`. Above the claim it refutes it, and the exit status is 1; below, it proves nothing.
For DP training, the longest gradient that clipping lets through is measured too, which refutes the claim above the clipping norm.
The last column tells how far the audit can see: its bound, had every guess been right. Settings that make audits quick are in
conf/auditing; any key=value changes them. `seed` fixes what is public, as in every run; coins and noise are secret, unless
`privacy.noise_seed` repeats them.

Nothing of it is a release: it writes `out`/internal/audit.json, last, once all is done. A killed audit is started again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING, DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from audit.clipping import largest_contribution
from audit.planted import Planted, of_users, patterns
from audit.queries import asks_alone, play_queries
from audit.statistics import Finding, game, one_run
from audit.training import Training, train_base, train_with_canaries
from audit.votes import play
from conf.compose import compose_script
from conf.help import run_script
from data.dataset import ClassCounts, Dataset
from disk import write_json
from dp_finetune.method import DPDiffusion
from errors import require
from method import Method
from models.public.settings import Model
from pe.evolution import PrivateEvolution
from pipeline.config import check_device, refuse_added_keys, tell_unit, torch_device
from privacy.config import LEAST_NOISE, Privacy
from privacy.inherited import Inherited
from privacy.ledger import Ledger
from privacy.mechanisms import Unit
from privacy.noise import NoiseSource
from store.run_dir import RunDir
from tracking.progress import progress


@dataclass(kw_only=True)
class Auditing:
    dataset: Dataset = MISSING
    method: Method = MISSING
    model: Model = MISSING
    privacy: Privacy = MISSING
    canaries: int = 1000  # dp_diffusion, dp_loda: of one training
    repetitions: int = 1000  # other methods: runs, half of them with the planted image, or user
    images_each: int = 20  # with privacy.unit=user: of a canary, who is a user
    base_noise_multiplier: float | None = None  # dp_diffusion: train a base first, on the same images, whose spends count too
    confidence: float = 0.95
    out: str | None = None
    seed: int = 0  # everything but coins and privacy noise
    device: str = "auto"

    def __post_init__(self) -> None:
        tell_unit(self.dataset, self.privacy)

    @property
    def each(self) -> int | None:
        """Images of a canary that is a user; None: a canary is an image."""
        return self.images_each if self.privacy.unit is Unit.user else None

    def check(self) -> None:
        check_device(self.device)
        require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1")
        require(0.5 < self.confidence < 1, "confidence", self.confidence, "above 0.5 and below 1")
        require(self.canaries >= 32, "canaries", self.canaries, "32 or more")
        whole = self.repetitions >= 8 and self.repetitions % 4 == 0
        require(whole, "repetitions", self.repetitions, "a multiple of 4 that is at least 8")
        base, plain = self.base_noise_multiplier, type(self.method) is DPDiffusion
        allowed = f"a finite number above 0, at least {LEAST_NOISE:g}, for method=dp_diffusion, or null"
        require(base is None or (plain and LEAST_NOISE <= base < 1e6), "base_noise_multiplier", base, allowed)
        allowed = "dp_diffusion, dp_loda, dp_moments, dp_merf, dp_mepf, pe, or one with a `measurement`"
        known = isinstance(self.method, DPDiffusion | PrivateEvolution) or asks_alone(self.method)
        require(known, "method", self.method.name, allowed)
        if isinstance(self.method, DPDiffusion | PrivateEvolution):
            share = self.method.warm_up.epsilon
            require(share is None, "method.warm_up.epsilon", share, "null here (method=dp_moments audits that mechanism)")
        self.privacy.check()
        require(self.images_each >= 1, "images_each", self.images_each, "1 or more")
        self.dataset.check()
        self.model.check(self.dataset)
        trained = isinstance(self.method, DPDiffusion)
        count = self.canaries if trained else 1
        canaries = of_users(patterns(0, self.dataset.shape, self.seed), np.zeros(0, np.int64), 1, self.each)
        self.method.check(Planted.of(self.dataset, canaries, np.ones(count, bool)), self.model, self.privacy)
        if trained:
            conditional = self.method.conditional
            require(conditional, "method.conditional", conditional, "true, as canaries are told apart by their labels")
            counts = self.dataset.class_counts
            allowed = "uniform or public, as an audit of training reads no counts"
            require(counts is not ClassCounts.laplace, "dataset.class_counts", counts, allowed)


def main(overrides: list[str]) -> None:
    # Setup
    settings, cfg = _settings(overrides)
    started = time.time()
    folder = _folder(settings, cfg)
    noise = NoiseSource.for_run(folder.noise_key, settings.privacy.noise_seed)

    # Run
    audit = _one_run if isinstance(settings.method, DPDiffusion) else _game
    finding, ledger, size = audit(settings, noise, folder)
    largest = _largest_contribution(settings)

    # Report
    claimed = ledger.epsilon  # takes seconds
    report = {
        "method": settings.method.name,
        "dataset": settings.dataset.name,
        "claimed_epsilon": claimed,
        "delta": ledger.delta,
        "lower_bound": finding.lower_bound,
        "largest_contribution": largest,
        "refuted": finding.lower_bound > claimed or (largest or 0.0) > 1,
        "confidence": settings.confidence,
        **size,
        "guesses": finding.guesses,
        "correct": finding.correct,
        "largest_bound_possible": finding.largest,
        "false_positive_rate": finding.false_positives,
        "true_positive_rate": finding.true_positives,
        "unit": settings.privacy.unit.value,
        "neighbouring": settings.privacy.unit.neighbouring,
        "accountant": ledger.accountant.value,
        "mechanisms": [spend.to_dict() for spend in ledger.spends],
        "seconds": round(time.time() - started, 1),
    }
    write_json(folder.internal / "audit.json", report)
    folder.close()
    _print(report, folder)
    if finding.lower_bound > claimed:
        raise SystemExit(f"the claim is refuted: epsilon is at least {finding.lower_bound:.3g}, not {claimed:.3g}")
    if report["refuted"]:
        raise SystemExit(f"the claim is refuted: one example can add {largest:.6f} times the clipping norm to a sum")


def _largest_contribution(settings: Auditing) -> float | None:
    """Of the clipping norm; None where nothing is clipped."""
    if not isinstance(settings.method, DPDiffusion):
        return None
    return largest_contribution(settings.method, settings.dataset, torch_device(settings.device))


def _one_run(settings: Auditing, noise: NoiseSource, folder: RunDir) -> tuple[Finding, Ledger, dict[str, int]]:
    assert isinstance(settings.method, DPDiffusion)
    included = noise.stream("audit/coins").uniform(settings.canaries) < 0.5
    model = settings.model.build(settings.dataset, torch_device(settings.device), settings.seed)
    before, inherited = np.zeros(settings.canaries), Inherited()
    place, seed = folder.checkpoints, settings.seed
    training = Training(settings.method, settings.dataset, model, settings.privacy, included, noise, place, seed, settings.each)
    if (sigma := settings.base_noise_multiplier) is not None:
        known = replace(settings.privacy, epsilon=None, noise_multiplier=sigma)
        key, place = NoiseSource(noise.stream("audit/base").bytes(32)), folder.checkpoints / "base"
        place.mkdir()
        before, inherited = train_base(replace(training, privacy=known, noise=key, folder=place))
    scores, ledger = train_with_canaries(training, inherited)
    finding = one_run(before + scores, included, ledger.delta, settings.confidence)
    return finding, ledger, {"canaries": settings.canaries, "runs": 1 if settings.base_noise_multiplier is None else 2}


def _game(settings: Auditing, noise: NoiseSource, folder: RunDir) -> tuple[Finding, Ledger, dict[str, int]]:
    scores: dict[bool, list[float]] = {True: [], False: []}
    rest = settings.privacy, settings.repetitions, noise, folder.checkpoints, settings.seed, settings.each
    model = settings.model.build(settings.dataset, torch_device(settings.device), settings.seed)
    if asks_alone(settings.method):
        games = play_queries(settings.method, settings.dataset, model, *rest)
    else:
        assert isinstance(settings.method, PrivateEvolution)
        games = play(settings.method, settings.dataset, model, settings.model.image_shape, *rest)
    with progress(f"{settings.method.name}, again and again", settings.repetitions) as advance:
        for score, inside, ledger in games:  # noqa: B007  # they all cost the same
            scores[inside].append(score)
            advance(1)
    finding = game(np.array(scores[True]), np.array(scores[False]), ledger.delta, settings.confidence)
    return finding, ledger, {"canaries": 1, "runs": settings.repetitions}


def _settings(overrides: list[str]) -> tuple[Auditing, DictConfig]:
    cfg = compose_script("audit", Auditing, overrides)
    settings: Any = OmegaConf.to_object(cfg)
    assert isinstance(settings, Auditing)
    refuse_added_keys(settings)
    settings.check()
    return settings, cfg


def _folder(settings: Auditing, cfg: DictConfig) -> RunDir:
    default = Path("runs", "audit", f"{settings.dataset.name}-{settings.method.name}", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    out = Path(settings.out) if settings.out else default
    require(not out.exists() or (out.is_dir() and not any(out.iterdir())), "out", out, "a new folder, or an empty one")
    settings.dataset.prepare()
    settings.model.prepare(settings.method.embeddings())
    folder = RunDir(out)
    folder.lock()
    folder.open(OmegaConf.to_yaml(cfg, resolve=True))
    return folder


def _print(report: dict[str, Any], folder: RunDir) -> None:
    title = f"Audit of {report['method']} on {report['dataset']}, {report['confidence']:.0%} confidence"
    columns = {
        "claimed ε": f"{report['claimed_epsilon']:.3g}",
        "δ": f"{report['delta']:g}",
        "lower bound": f"{report['lower_bound']:.3g}",
        "canaries": str(report["canaries"]),
        "runs": str(report["runs"]),
        "guesses": str(report["guesses"]),
        "correct": str(report["correct"]),
        "time": f"{report['seconds']:.0f} s",
        "could show": f"{report['largest_bound_possible']:.3g}",
        **({} if (share := report["largest_contribution"]) is None else {"longest": f"{share:.4f}"}),
    }
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row(*columns.values())
    screen = Console()
    screen.print(table)
    screen.print(f"measured on private images, not to be shared: {folder.path}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_script(main, __doc__)
