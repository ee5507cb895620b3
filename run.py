"""One command: a private image dataset, a budget and a method in; a differentially private synthetic dataset out.

    python run.py                                     # Private Evolution on the embedded digits
    python run.py method=public_only eval=seeds       # any group=option, any key=value; --help lists them

config -> dataset -> public model -> method(private data, budget) -> samples -> [release] -> evaluators -> tracker
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin stall each other on shared cores

import functools
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from conf.help import one_line, print_help
from conf.schema import CONFIG_DIR, Config, register, to_typed
from conf.sweep import Report, Sweep, digest
from data.private import PrivateDataset
from data.samples import SampleSet
from data.shards import open_release
from disk import write_json
from errors import InputError
from eval.evaluator import Subject
from eval.judge import judge
from method.base import Run
from method.opening import difference, keep_apart, open_folder
from method.plan import Plan
from plan_only import plan_document
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from release import publish, select
from report import print_report
from tracking import ranks
from tracking.made_with import made_with
from tracking.memory import forget_peak, peak_gib
from tracking.meter import MEMORY
from tracking.progress import console
from tracking.run_dir import RunDir
from tracking.tracker import Several, Tracker


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="config")
def main(cfg: DictConfig) -> None:
    from run import job  # a launcher sends this function to other processes, where it must find the rest

    job(cfg)


def job(cfg: DictConfig) -> None:
    """One run, or one of a sweep."""
    path, sweep = Path(HydraConfig.get().runtime.output_dir), Sweep.running()
    folder = RunDir(path.resolve() if path.is_symlink() else path)  # a sweep's link leads into the store
    if sweep and ranks.launched() > 1:
        folder.remove_if_empty()
        say("-m: a sweep runs in one process, or with hydra/launcher=joblib; torchrun is for one run")
        raise SystemExit(2)
    if sweep:
        sweep.links(folder)
    try:
        synthesise(cfg, folder)
    except (Exception, SystemExit) as error:  # here, before Hydra adds lines of its own
        line = str(error) if isinstance(error, SystemExit) else one_line(error)
        if sweep:  # the other runs go on
            if line is None:
                traceback.print_exc()
            sweep.fails(line or repr(error), 2 if one_line(error) else 1)
            say(line or repr(error))
            return
        if line is None or isinstance(error, SystemExit):
            raise
        say(line)
        raise SystemExit(2) from None
    finally:
        folder.close()
        if sweep:
            sweep.links(folder)


def synthesise(cfg: DictConfig, folder: RunDir) -> None:
    """One run, from a composed configuration to the report."""
    made = folder
    if kept(folder, cfg):
        return
    forget_peak()
    try:
        config = to_typed(cfg)
        if sweep := Sweep.running():
            config.tracker.group = config.tracker.group or sweep.name
        if folder.in_store and folder.path.name != digest(cfg):
            raise InputError(f"{folder.key}={folder.path}: is named for other settings than these, whose name is {digest(cfg)}")
        plan = Plan.make(config.method, config.dataset, config.privacy, config.inherited)
        if config.plan_only:
            print(json.dumps(plan_document(plan, config), indent=2))
            return
        config.dataset.prepare()
        if ranks.rank() == 0:
            config.eval.prepare(config.dataset)
        config.model.prepare(config.method.embeddings() | config.eval.embeddings())
        load = functools.cache(config.dataset.private)
        if ranks.rank() == 0:
            keep_apart(config.dataset, config.public_inputs, load, opens=bool(plan.spends))  # bad images are told before a wait
            folder.take_turn(lambda: tell(folder, "waits for another process, which makes or judges this release"))
            if kept(folder, cfg):
                return  # it did
        device = ranks.start(config.torch_device)
        path = ranks.agreed(made.path)
        if ranks.rank() == 0:
            open_folder(folder, cfg, plan, load, config.torch_device, config.privacy, config.public_inputs)
        else:
            folder = RunDir(path)
    finally:
        made.remove_if_empty()

    ranks.wait()
    own = folder.of_rank(ranks.rank())
    settings = OmegaConf.to_container(cfg, resolve=True)
    tracker = config.tracker.build(folder.path, settings) if own is folder else Several()  # type: ignore[arg-type]
    model = config.model.build(config.dataset, device, config.seed)

    def subject(samples: SampleSet) -> Subject:
        return Subject(
            samples,
            config.dataset,
            model,
            device,
            config.seed,
            figures=folder.figures,
            private_figures=config.eval.private_figures,
            checkpoints=folder.checkpoints,
            settings=config.model,
            cache=config.eval.cache_folder,
        )

    if folder.published is None:
        ledger = Ledger(own.ledger, plan.spends, config.delta, config.privacy.accountant)
        for spend in config.inherited.spends:
            ledger.spend(spend.purpose, spend.mechanism, spend.count)
        data = config.dataset
        private = PrivateDataset(load, data.num_private, len(data.classes), ledger, data.may_be_fewer)
        run = Run(
            dataset=config.dataset,
            privacy=config.privacy,
            noise=NoiseSource.for_run(folder.noise_key, config.privacy.noise_seed),
            noise_multiplier=plan.noise_multiplier,
            seed=config.seed,
            tracker=tracker,
            checkpoints=own.checkpoints,
            figures=own.figures,
        )
        model.generator.kept = own.checkpoints
        samples = config.method.run(private, model, run)
    ranks.stop()
    if own is not folder:
        return
    if folder.published is None:
        selected = select(samples, private, run, config, folder, subject)
        publish(samples, selected, config, ledger, folder, run)
    folder.pass_turn()
    evaluate(config, folder, tracker, subject)
    tracker.finish()


def kept(folder: RunDir, cfg: DictConfig) -> bool:
    """Whether this run of a sweep is there already, which is said."""
    found = bool(Sweep.running()) and folder.finished and difference(folder.config.read_text(), cfg) is None
    if found:
        tell(folder, "finished before, kept")
    return found


def tell(folder: RunDir, text: str) -> None:
    console.print(f"{folder.path}: {text}", highlight=False, soft_wrap=True)


def evaluate(config: Config, folder: RunDir, tracker: Tracker, subject: Callable[[SampleSet], Subject]) -> None:
    """Diagnostics on real data: after the release, into internal/, never fed back. The last file written is metrics.json."""
    published, document = folder.published, folder.certificate
    assert published is not None
    assert document is not None
    samples = open_release(published, config.dataset)
    if selected := document.get("selected"):
        config.eval.downstream = replace(config.eval.downstream, **selected, choose_from=[], choose_steps=[])
    budget = {"privacy/epsilon": document["epsilon"], "privacy/delta": document["delta"]}
    tracker.summary({**budget, "method": config.method.name, "dataset": config.dataset.name})
    metrics: dict[str, Any] = {**budget, **json.loads(folder.cost.read_text())}
    started = time.time()
    log = functools.partial(tracker.log, internal=True)
    numbers, errors = judge(config.eval.evaluators, subject(samples), folder.internal / "evaluation", log)
    metrics |= {**numbers, "time/evaluation_seconds": round(time.time() - started, 1)}
    metrics[MEMORY] = max(metrics.get(MEMORY, 0), round(peak_gib(), 2))
    tracker.image("grid", published / "grid.png") if published == folder.release else None
    if errors:
        told = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise SystemExit(f"{len(errors)} evaluator(s) failed; the release stands, run again to evaluate: {told}")
    before = json.loads(folder.made_with.read_text()) if folder.made_with.exists() else {}
    write_json(folder.made_with, {**before, "evaluation": made_with(config.torch_device)})
    write_json(folder.metrics, metrics)
    print_report(config, metrics, document, folder)


def cli() -> int:
    """Exit status 0: done; 1: something broke; 2: bad input, said in one line before any work."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print_help(CONFIG_DIR)
        return 0
    register()
    Report.status, Report.sweep = 0, None
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, and become one line
    places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))  # for processes of a launcher
    try:
        main()
    except Exception as error:
        line, sweep = one_line(error), Report.sweep
        if line is None and sweep and sweep.began:  # of a launcher, not of a run
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].split('. ')[0]}"
            say(f"error: the sweep broke off ({reason}); the same command runs what is missing")
            sweep.breaks(reason)
            Report.end(sweep)
            return 1
        if line is None:
            raise
        say(line)
        if sweep:  # one whose settings were refused, all of them
            sweep.discard()
        return 2
    return Report.status


def say(line: str) -> None:
    """One line, however many processes found the same mistake."""
    if ranks.rank() == 0:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    from run import cli as command  # not __main__'s, which those processes cannot import

    sys.exit(command())
