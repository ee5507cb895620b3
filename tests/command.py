"""The command as users run it: composed, in this process, in a forked one that can be killed, or started for real."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

import run
from conf.compose import compose_config, to_typed
from dp_finetune import training
from models.public.settings import Model
from pipeline.config import Config
from store.run_dir import RunDir
from tracking.meter import PART

HANGS = 600  # seconds: nothing takes so long; a test that waits for longer fails rather than hangs
ROOT = Path(run.__file__).parent
SMOKE = ["+experiment=smoke", "eval.downstream.steps=2", "eval.downstream.batch_size=8", "device=cpu"]
STRONG_NOISE = [
    "privacy.epsilon=null",
    "privacy.noise_multiplier=20",
    "method.noise=gaussian",
]  # it decides who is a parent
NOISY = [*SMOKE, *STRONG_NOISE]
PUBLIC_ONLY = ["method=public_only", "method.num_samples=10", "eval=none", "device=cpu"]


@dataclass
class Result:
    code: int
    out: str
    err: str


@functools.cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_config(overrides)


def composed(*overrides: str) -> DictConfig:
    """A configuration of its own, composed once for all tests that ask for it."""
    return copy.deepcopy(_composed(overrides))


def composed_model(*overrides: str) -> Model:
    """Its settings alone, which need not fit the dataset."""
    return to_typed(_composed(overrides)).model


def typed(*overrides: str) -> Config:
    """Checked."""
    config = to_typed(_composed(overrides))  # objects of its own
    config.check()
    return config


def python_run(*overrides: str, folder: Path = ROOT, **environment: str) -> Result:
    """`python run.py` in a new process, in `folder`: slow to start, so only where that is the point."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *overrides], cwd=folder, env=environment, capture_output=True, text=True
    )
    return Result(done.returncode, done.stdout, done.stderr)


def call(*overrides: str) -> Result:
    """The command in this process, in the working directory; its run directory is `run` unless `overrides` name one."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    GlobalHydra.instance().clear()
    try:
        sys.argv = ["run.py", *overrides]
        if not any(override.startswith("hydra.") for override in overrides):
            sys.argv.append("hydra.run.dir=run")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(Hydra, "get_mode", _mode):
            code = run.cli()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        err.write("" if isinstance(end.code, int) else f"{end.code}\n")
    finally:
        sys.argv = argv
    return Result(code, out.getvalue(), err.getvalue())


def _mode(_: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
    """Of an experiment that is a sweep of its own. Hydra composes everything to find it, and then once more to run."""
    named = [override.partition("=")[2] for override in overrides if override.startswith("+experiment=")]
    files = [ROOT / "conf" / "experiment" / f"{name}.yaml" for name in named]
    sweeps = any(file.exists() and "mode: MULTIRUN" in file.read_text() for file in files)
    return RunMode.MULTIRUN if sweeps or "hydra.mode=MULTIRUN" in overrides else None


def by_torchrun(count: int, *command: str) -> Result:
    """`torchrun --nproc_per_node=count command`, the processes talking over the loopback alone. Slow to start."""
    return ended(torchrun("--standalone", f"--nproc-per-node={count}", *command))


def on_nodes(count: int, *command: str) -> list[subprocess.Popen[str]]:
    """The agents of `count` nodes of one process each, as torchrun is started on each of several machines. Slow to start."""
    place = [f"--nnodes={count}", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    return [torchrun(*place, f"--node-rank={node}", *command) for node in range(count)]


def in_processes(count: int, *command: str, nodes: int = 1) -> Result:
    """The `count` processes of one run, on `nodes` nodes, forked where everything is imported already and without an agent.

    `command` is that of torchrun: `-m` and a module, or a file of Python, and arguments. Returns what all wrote, rank by rank.
    Where one fails the others are killed.
    """
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as parent:
        folders, processes = [Path(parent, str(rank)) for rank in range(count)], []
        for rank, folder in enumerate(folders):
            folder.mkdir()
            world = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank % (count // nodes), "LOCAL_WORLD_SIZE": count // nodes}
            environment = {**os.environ, **place, **{key: str(value) for key, value in world.items()}}
            processes.append(fork_context().Process(target=_ranked, args=(folder, command, environment)))
        try:
            for process in processes:
                process.start()
            going: dict[Any, BaseProcess] = {process.sentinel: process for process in processes}
            while going and not any(process.exitcode for process in processes):
                ended = wait(list(going), HANGS)
                assert ended, "they hang"
                for sentinel in ended:
                    going.pop(sentinel).join()
        finally:
            for process in processes:
                process.kill()
                process.join()
        out, err = ("".join((folder / name).read_text() for folder in folders) for name in ("out", "err"))
    return Result(max(abs(process.exitcode or 0) for process in processes), out, err)


def _ranked(folder: Path, command: tuple[str, ...], environment: dict[str, str]) -> None:
    _redirect_output(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    if command[0] == "-m":
        sys.argv = list(command[1:])
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        runpy.run_path(command[0], run_name="__main__")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def torchrun(*arguments: str) -> subprocess.Popen[str]:
    """In a session of its own, which a test can kill as a whole: agent and processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launch = [sys.executable, "-m", "torch.distributed.run", *arguments]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(launch, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def ended(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate()
    return Result(process.returncode, out, err)


@dataclass
class Forked:
    """The command in a process of its own, forked where everything is imported already.

    Before it opens or renames a file of its folder it asks, and waits for the answer: it can be killed at such a moment,
    however fast or slow either process is.
    """

    process: BaseProcess
    folder: Path
    asks: Connection

    def kill_when(self, reached: Callable[[], bool]) -> None:
        """kill -9 at the first file that it would open or rename once `reached()`."""
        try:
            while True:
                assert self.asks.poll(HANGS), "never reached"
                self.asks.recv()
                if reached():
                    break
                self.asks.send(None)
        except EOFError:
            pytest.fail(f"ended too early: {self.result().err}")
        self.process.kill()
        self.process.join()

    def result(self) -> Result:
        """Of the command, which asks no longer."""
        self.asks.close()
        self.process.join()
        assert self.process.exitcode is not None
        return Result(self.process.exitcode, *((self.folder / name).read_text() for name in ("out", "err")))


def fork(folder: Path, *overrides: str, patch: Callable[[], None] | None = None) -> Forked:
    """Start the command with the run directory `folder`/run; `patch()` runs first in the new process."""
    folder.mkdir(exist_ok=True)
    context = fork_context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(folder, [f"hydra.run.dir={folder}/run", *overrides], patch, theirs))
    process.start()
    theirs.close()
    return Forked(process, folder, ours)


def fork_context() -> ForkServerContext:
    """Its processes have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["run"])
    with contextlib.chdir(ROOT):  # where the server finds `run`
        forkserver.ensure_running()
    return context


def fork_run(folder: Path, *overrides: str, patch: Callable[[], None] | None = None) -> Result:
    return fork(folder, *overrides, patch=patch).result()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def output_of(folder: Path) -> Path:
    """What a run directory releases, or would: under internal/ where its noise is known."""
    found = RunDir(folder).output
    assert found is not None
    return found


def released(result: Result, folder: Path) -> Path:
    """What the run in `folder`/run released, which went well."""
    assert result.code == 0, result.err
    return output_of(folder / "run")


def parts_of(run: Path) -> dict[str, float]:
    """Seconds by part of what its method took."""
    metrics = json.loads((run / "internal" / "cost.json").read_text())
    return {name.removeprefix(PART): value for name, value in metrics.items() if name.startswith(PART)}


def save_every_step() -> None:
    training.CHECKPOINT_SECONDS = 0.0


def ledger(folder: Path) -> list[str]:
    """The purposes in the ledger of a run directory."""
    path = folder / "internal" / "ledger.jsonl"
    return [json.loads(line)["purpose"] for line in path.read_text().splitlines()] if path.exists() else []


def _child(folder: Path, overrides: list[str], patch: Callable[[], None] | None, parent: Connection) -> None:
    _redirect_output(folder)
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = ["run.py", *overrides]
    if patch:
        patch()
    _ask_before_files(folder, parent)
    sys.exit(run.cli())


def _redirect_output(folder: Path) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)


def _ask_before_files(folder: Path, parent: Connection) -> None:
    """Until the other end is closed. Files that C++ opens, such as PyTorch's, are not among them; their renaming is."""
    lock, process, asking = threading.RLock(), os.getpid(), True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal asking
        if not asking or event not in ("open", "os.rename") or os.getpid() != process:
            return
        if not any(isinstance(arg, str | Path) and os.path.abspath(arg).startswith(str(folder)) for arg in args):
            return
        with lock:
            try:
                parent.send(None)
                parent.recv()
            except (EOFError, OSError):
                asking = False

    sys.addaudithook(hook)
