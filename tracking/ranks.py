"""This process among the processes of one run: alone, or started by torchrun."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def start(device: torch.device) -> torch.device:
    """Join the other processes, if torchrun started several; returns this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
    return device


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    if dist.is_initialized():
        dist.barrier()


def sum_over_ranks(tensors: list[torch.Tensor]) -> None:
    """In place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
