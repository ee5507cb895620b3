"""One command: a private image dataset, a budget and a method in; a differentially private synthetic dataset out.

    python run.py                                     # Private Evolution on the embedded digits
    python run.py method=public_only eval=seeds       # any group=option, any key=value; --help lists them

config -> dataset -> public model -> method(private data, budget) -> samples -> [release] -> evaluators -> tracker

This is the entry for Hydra: what a run does is `pipeline.run`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin stall each other on shared cores

import copy
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from conf.callback import Report, running_sweep, sweep_name
from conf.compose import CONFIG_DIR, check_tuned, completed, register, to_typed
from conf.help import goes_on_with, launch_failure, one_line, print_help, shows_tracebacks
from errors import InputError, require
from pipeline import EvaluationError, run
from pipeline.config import Config
from pipeline.plan import Plan
from pipeline.plan_document import plan_document
from pipeline.report import print_report
from pipeline.selection import Candidate, Selecting, run_selection, selection_document
from store.identity import digest
from store.run_dir import RunDir
from store.sweep import Sweep
from tracking import ranks


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="config")
def main(cfg: DictConfig) -> None:
    from run import job  # a launcher sends this function to other processes, where it must find the rest

    job(cfg)


def job(cfg: DictConfig) -> None:
    """One run, or one of a sweep, whose other runs go on where this one fails."""
    path, sweep = Path(HydraConfig.get().runtime.output_dir), running_sweep()
    folder = RunDir(path.resolve() if path.is_symlink() else path)  # a sweep's link leads into the store
    number = HydraConfig.get().job.num if sweep else 0
    if sweep and ranks.launched() > 1:
        folder.remove_if_empty()
        say("-m: torchrun is for one run; a sweep has hydra/launcher=joblib, or submitit_slurm for several processes a run")
        raise SystemExit(2)
    if str(HydraConfig.get().runtime.choices.get("hydra/launcher")).startswith("submitit"):
        ranks.of_tasks()
    written = sweep if ranks.rank() == 0 else None  # by the first process for all
    if written:
        written.links(number, folder)
    try:
        start(cfg, folder, sweep)
    except (Exception, SystemExit) as error:  # here, before Hydra adds lines of its own
        line, status, crash = explained(error, folder, traceback_too=sweep is not None)
        if written:
            written.fails(number, list(HydraConfig.get().overrides.task), line or repr(error), status, crash)
        if sweep:
            say(line or repr(error))
            return
        if line is None:
            raise
        say(line)
        raise SystemExit(status) from None
    finally:
        folder.remove_if_empty()
        if written:
            written.links(number, folder)


def explained(error: BaseException, folder: RunDir, traceback_too: bool) -> tuple[str | None, int, Path | None]:
    """The line for it, if there is one, an exit status, and the file that says what broke, which is told."""
    line = one_line(error)
    status, crash = (2, None) if line else (1, folder.error if folder.error.exists() else None)
    if line is None and isinstance(error, EvaluationError | SystemExit):
        line = str(error)
    if shows_tracebacks() or (traceback_too and line is None):
        traceback.print_exception(error)
    if crash:
        say(f"what broke, and the command that goes on: {crash}")
    return line, status, crash


def start(cfg: DictConfig, folder: RunDir, sweep: Sweep | None) -> None:
    config = to_typed(cfg)
    given: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    check_tuned(given)
    if config.selection is not None:
        gather(cfg, config, folder, sweep)
        return
    if config.plan_only:
        config.check()
        if ranks.rank() == 0:
            print(json.dumps(plan_document(Plan.of(config), config), indent=2))
        return
    if sweep:
        config.tracker.group = config.tracker.group or sweep_name(sweep)
    overrides = [*HydraConfig.get().overrides.task, f"hydra.run.dir={folder.path}"]
    result = run(config, folder, keep_finished=sweep is not None, goes_on_with=goes_on_with("run.py", overrides))
    if result is not None and result.fresh:
        print_report(config, result.metrics, result.certificate, result.folder)


def gather(cfg: DictConfig, config: Config, folder: RunDir, sweep: Sweep | None) -> None:
    """One candidate more of a selection, which begins when the sweep has ended."""
    require(
        sweep is not None, "selection", config.selection.name if config.selection else None, "with -m, whose settings it takes"
    )
    launcher = str(HydraConfig.get().runtime.choices.get("hydra/launcher"))
    require(launcher == "basic", "hydra/launcher", launcher, "basic with selection=private, whose runs come one after the other")

    def at(epsilon: float) -> Config:
        changed = copy.deepcopy(cfg)
        changed.privacy.epsilon = epsilon
        return to_typed(changed)

    config.check()
    Report.candidates.append(Candidate(config, at))
    Report.store = folder.path.parent


def select() -> int:
    """The best of all candidates: as a run of its own, to which the sweep's folder links. An exit status."""
    sweep, selecting = Report.sweep, Selecting.of(Report.candidates)
    config = selecting.config
    if config.plan_only:
        print(json.dumps(selection_document(selecting), indent=2))
        return 0
    assert sweep is not None
    assert Report.store is not None
    folder = RunDir(Report.store / digest(config))
    sweep.folder.mkdir(parents=True, exist_ok=True)
    try:
        result = run_selection(selecting, folder, goes_on_with("run.py", sys.argv[1:]))
    except Exception as error:
        line, status, _ = explained(error, folder, traceback_too=True)
        say(line or repr(error))
        return status
    finally:
        folder.remove_if_empty()
        sweep.links(0, folder)
        sweep.discard()
    if result is None:
        say(f"{folder.path}: the number of runs came out as 0, so nothing is released; ε pays for that, too")
        return 1
    if result.fresh:
        print_report(result.config, result.metrics, result.certificate, result.folder)
    return 0


def cli() -> int:
    """Exit status 0: done; 1: something broke; 2: bad input, said in one line before any work."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        try:
            register()  # extensions have options too
        except InputError as error:
            say(f"error: {error}")
            return 2
        print_help(CONFIG_DIR)
        return 0
    Report.status, Report.sweep, Report.candidates, Report.store = 0, None, [], None
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, and become one line
    places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))  # for processes of a launcher
    try:
        register()
        sys.argv[1:] = completed(sys.argv[1:])
        main()
        if Report.candidates and not Report.status:
            return select()
    except Exception as error:
        line, sweep = one_line(error) or launch_failure(error), Report.sweep
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
    """One line a node, however many processes found the same mistake."""
    if ranks.local_rank() == 0:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    from run import cli as command  # not __main__'s, which those processes cannot import

    sys.exit(command())
