"""This process among the processes of one run: alone, or one of those that torchrun or Slurm started, on one node or several.

All of them run the same program on the same draws: generation and per-example gradients are split over them, and only
rank 0 writes the run directory. The others write what they would have written under its `internal/ranks/`.

Where a process is lost, the others end with one line a node and exit status 1 (SystemExit).
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from disk import write_json, write_whole
from errors import reason

HERE = "here"  # in the store of a group: rank 0 is there
MARK = "processes"  # a file with which rank 0 shows a folder to the others
ARRIVES = 60.0  # seconds in which what one node has written is seen by all: network disks keep what they knew for a while
_groups = itertools.count()  # of this process, one after the other


def of_tasks() -> None:
    """Inside a job of submitit's: its tasks, if there are several, are the processes of one run, as torchrun's would be."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)  # `start` takes the device


def start(device: torch.device) -> torch.device:
    """Join the other processes, if several were started; returns this process's device.

    Rank 0 may come as late as it likes: it may have waited for a lock. The others wait for it first, as a group that is not
    complete in time is an error.
    """
    if launched() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            device = torch.device("cuda", local_rank())
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        with _together():
            store, own, count = next(dist.rendezvous("env://"))
            store = dist.PrefixStore(f"group {next(_groups)}", store)
            if own == 0:
                store.set(HERE, "rank 0")
            while not store.check([HERE]):
                time.sleep(0.2)
            dist.init_process_group(backend, store=store, rank=own, world_size=count)
    return device


@contextmanager
def _together() -> Iterator[None]:
    """PyTorch has no error of its own for a connection that broke; nothing else is done inside."""
    try:
        yield
    except RuntimeError as error:
        what = reason(error).split(". ")[0]  # the rest is advice
        told = f"error: another process of this run is gone ({what}); the same command, on every node, goes on"
        raise SystemExit(told if local_rank() == 0 else 1) from error


def rank() -> int:
    """0 for the process that writes. Known before `start`."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Among those of its node: 0 for the one that speaks there. Known before `start`."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def launched() -> int:
    """The processes that were started. Known before `start`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def nodes() -> int:
    """Among which the processes that share the work now are spread."""
    return world() // int(os.environ.get("LOCAL_WORLD_SIZE", world()))


def world() -> int:
    """The processes that share the work now: 1 before `start` and after `stop`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share() -> int:
    """Which of `world()` shares of the work is this process's."""
    return dist.get_rank() if dist.is_initialized() else 0


def broadcast(value: Any) -> Any:
    """Rank 0's value, for what depends on a clock."""
    if not dist.is_initialized():
        return value
    values = [value]
    with _together():
        dist.broadcast_object_list(values)
    return values[0]


def differing(found: Callable[[], Mapping[str, Any]]) -> list[str]:
    """Names of what is not the same on every node: `found()` is called once on each, and not at all where there is one."""
    if nodes() == 1:
        return []
    every: list[Any] = [None] * world()
    own = dict(found()) if local_rank() == 0 else None
    with _together():
        dist.all_gather_object(every, own)
    first, *others = [one for one in every if one is not None]
    return [name for name in first if any(one.get(name) != first[name] for one in others)]


def share_disk(folder: Path) -> bool:
    """Whether `folder`, which is there for rank 0, is the same one for every node."""
    if nodes() == 1:
        return True
    mark, sign = folder / MARK, broadcast(secrets.token_hex(8))
    if rank() == 0:
        write_whole(mark, sign)
    give_up = time.monotonic() + ARRIVES
    while not (arrived := mark.exists() and mark.read_text() == sign) and time.monotonic() < give_up:
        time.sleep(0.2)
    return not differing(lambda: {MARK: arrived})


def decided_once(path: Path, decide: Callable[[], Any]) -> Any:
    """What rank 0 decides by a clock or by the memory there is, plain JSON: kept at `path`, where a resumed run finds it.

    A kill may have come between the processes' files, so rank 0's alone says whether it is decided.
    """
    known = broadcast(json.loads(path.read_text()) if path.exists() else None)
    if known is None:
        known = broadcast(decide())
        write_json(path, known)
    return known


def sum_over_ranks(tensors: list[torch.Tensor]) -> None:
    """In place."""
    if not dist.is_initialized():
        return
    for tensor in tensors:
        moved = tensor.cuda() if dist.get_backend() == "nccl" else tensor
        with _together():
            dist.all_reduce(moved)
        if moved is not tensor:
            tensor.copy_(moved)


def wait() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        with _together():
            dist.barrier()


def stop() -> None:
    """From here on every process is alone."""
    wait()
    if dist.is_initialized():
        dist.destroy_process_group()
