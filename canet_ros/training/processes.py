# SPDX-License-Identifier: Apache-2.0
"""Which device a training runs on, and its share of the work where ``torchrun`` started several processes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# Others wait while the first one measures on val and writes. A process that ends is noticed at once.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class DistributedContext:
    """This process among all: its device (``cpu``, ``cuda:1``), and its ``rank`` of 0 .. ``processes`` - 1."""

    device: str
    rank: int = 0
    processes: int = 1


def distributed_context(device: str) -> DistributedContext:
    """What this process shall do, by torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK).

    Args:
        device: cpu, cuda or cuda:N. With several processes on GPUs, cuda: each takes that of its LOCAL_RANK.

    Raises:
        ValueError: this machine lacks the device, or several processes would share it.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"device {device!r}: expected cpu, cuda or cuda:N")
    rank, processes = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if device == "cpu":
        return DistributedContext(device, rank, processes)
    if not torch.cuda.is_available():
        raise ValueError(f"device {device}: PyTorch {torch.__version__} finds no CUDA GPU here")
    gpus = torch.cuda.device_count()
    wanted = int(device.partition(":")[2] or 0)
    if processes > 1:
        if ":" in device:
            raise ValueError(f"device {device}: {processes} processes take a GPU each, so give cuda")
        wanted = _number("LOCAL_RANK", None)
        if wanted >= gpus:
            raise ValueError(
                f"device cuda: process {wanted} of this machine finds {gpus} GPUs: start as many processes as GPUs"
            )
    elif wanted >= gpus:
        raise ValueError(f"device {device}: this machine has {gpus} GPUs, cuda:0 to cuda:{gpus - 1}")
    return DistributedContext(f"cuda:{wanted}", rank, processes)


def _number(variable: str, default: int | None) -> int:
    value = os.environ.get(variable, default)
    try:
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(
            f"{variable} is {value!r} in the environment: start the processes with torchrun"
        ) from None


@contextlib.contextmanager
def process_group(share: DistributedContext) -> Iterator[None]:
    """All processes of a training find each other, and none waits for one that has ended.

    Raises:
        RuntimeError: another process ended, or does not answer.
    """
    if share.processes == 1:
        yield
        return
    try:
        if share.device == "cpu":
            dist.init_process_group("gloo", timeout=_PATIENCE)
        else:
            torch.cuda.set_device(share.device)
            dist.init_process_group("nccl", timeout=_PATIENCE)
        yield
        dist.destroy_process_group()
    except RuntimeError as error:  # gloo's are no DistError
        first_line = str(error).partition("\n")[0]
        if not isinstance(error, dist.DistError) and "gloo" not in first_line:
            raise
        raise RuntimeError(
            f"process {share.rank} of {share.processes} goes no further: another one has ended, or does not answer "
            f"({first_line})"
        ) from error
