# SPDX-License-Identifier: Apache-2.0
"""Device and distributed context of a training process, with or without ``torchrun``."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# The other processes wait while the first one evaluates and writes. The end of a process is noticed at once.
_COLLECTIVE_TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class DistributedContext:
    """Device (``cpu``, ``cuda:1``) of this process, its rank, and the number of processes."""

    device: str
    rank: int = 0
    world_size: int = 1


def distributed_context(device: str) -> DistributedContext:
    """The context of this process, from torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK).

    Args:
        device: cpu, cuda or cuda:N. Several processes on GPUs need cuda: each takes the GPU of its LOCAL_RANK.

    Raises:
        ValueError: this machine lacks the device, or several processes would share a GPU.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"device {device!r}: expected cpu, cuda or cuda:N")
    rank, local_rank, world_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
    )
    if device == "cpu":
        return DistributedContext(device, rank, world_size)
    if not torch.cuda.is_available():
        raise ValueError(f"device {device}: PyTorch {torch.__version__} finds no CUDA GPU")
    if world_size > 1 and ":" in device:
        raise ValueError(f"device {device}: {world_size} processes need a GPU each: give cuda")
    index = int(device.partition(":")[2] or local_rank)
    gpus = torch.cuda.device_count()
    if index >= gpus:
        raise ValueError(f"device {device}: there is no cuda:{index}, this machine has {gpus} GPUs")
    return DistributedContext(f"cuda:{index}", rank, world_size)


@contextlib.contextmanager
def process_group(context: DistributedContext) -> Iterator[None]:
    """Connect the processes of a training.

    Raises:
        RuntimeError: another process ended, or does not answer.
    """
    if context.world_size == 1:
        yield
        return
    try:
        if context.device == "cpu":
            dist.init_process_group("gloo", timeout=_COLLECTIVE_TIMEOUT)
        else:
            torch.cuda.set_device(context.device)
            dist.init_process_group("nccl", timeout=_COLLECTIVE_TIMEOUT)
        yield
        dist.destroy_process_group()
    except RuntimeError as error:  # gloo does not raise DistError
        first_line = str(error).partition("\n")[0]
        if not isinstance(error, dist.DistError) and "gloo" not in first_line:
            raise
        raise RuntimeError(
            f"process {context.rank} of {context.world_size} cannot continue: another process ended, or does not "
            f"answer ({first_line})"
        ) from error
