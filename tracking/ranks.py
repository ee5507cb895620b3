"""This process among the processes of one run: alone, or one of those that torchrun started.

All of them run the same program on the same draws: generation and per-example gradients are split over them, and only
rank 0 writes the run directory. The others write what they would have written under its `internal/ranks/`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from disk import write_json

HERE = "here"  # in the store of a group: rank 0 is there
_groups = itertools.count()  # of this process, one after the other


def start(device: torch.device) -> torch.device:
    """Join the other processes, if torchrun started several; returns this process's device.

    Rank 0 may come as late as it likes: it may have waited for a lock. The others wait for it first, as a group that is not
    complete in time is an error.
    """
    if launched() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        store, own, count = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(f"group {next(_groups)}", store)
        if own == 0:
            store.set(HERE, "rank 0")
        while not store.check([HERE]):
            time.sleep(0.2)
        dist.init_process_group(backend, store=store, rank=own, world_size=count)
    return device


def rank() -> int:
    """0 for the process that writes and speaks. Known before `start`."""
    return int(os.environ.get("RANK", "0"))


def launched() -> int:
    """The processes that torchrun started. Known before `start`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
    dist.broadcast_object_list(values)
    return values[0]


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
        dist.all_reduce(moved)
        if moved is not tensor:
            tensor.copy_(moved)


def wait() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def stop() -> None:
    """From here on every process is alone."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
