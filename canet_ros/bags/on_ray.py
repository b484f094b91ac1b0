# SPDX-License-Identifier: Apache-2.0
"""Segments bags as tasks on a Ray cluster. Ray is an optional dependency."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from canet_ros.bags.bag import BagError
from canet_ros.hints import pip_install
from canet_ros.machine import usable_cores

T = TypeVar("T")


def bags_on_ray(
    do: Callable[..., T], tasks: Sequence[tuple[Any, ...]], address: str, gpus: int
) -> Iterator[T | BagError]:
    """Yield the result of ``do`` for each bag, in order, or the error with which its task ended.

    A task takes a core, and a GPU where ``gpus`` is 1. If a worker is killed, another one repeats the task.

    Args:
        address: of the cluster, as ``ray.init`` takes it; empty: start one of this machine's cores.

    Raises:
        BagError: Ray is missing, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # disable Ray's telemetry
    try:
        import ray
    except ImportError:
        raise BagError(f"--ray needs Ray: {pip_install('ray')}") from None
    local = {} if address else {"num_cpus": usable_cores(), "include_dashboard": False}
    try:
        ray.init(address=address or "local", **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BagError(f"no Ray cluster at {address!r}: {error}") from error
    try:
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1, scheduling_strategy="SPREAD")(do)
        for reference in [task.remote(*arguments) for arguments in tasks]:
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:  # of an exception in a task, the text is its traceback
                yield BagError(f"a task on Ray failed: {str(error).strip().splitlines()[-1]}")
    finally:
        ray.shutdown()
