# SPDX-License-Identifier: Apache-2.0
"""Tasks on a cluster. Ray is an extra of its own: it is large, and only a cluster needs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from canet_ros.bags.bag import BagError
from canet_ros.hints import pip_install
from canet_ros.machine import usable_cores

T = TypeVar("T")


def tasks_on_ray(
    do: Callable[..., T], tasks: Sequence[tuple[Any, ...]], address: str, gpus: int
) -> Iterator[T]:
    """What ``do`` returns for each of the tasks, in their order.

    A task takes one core. If its worker dies, it is done again by another.

    Args:
        address: of the cluster, as ``ray.init`` takes it; empty: this machine alone.
        gpus: that each task takes.

    Raises:
        BagError: Ray is missing, there is no cluster at the address, or a task ended with an exception.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers that it is used
    try:
        import ray
    except ImportError:
        raise BagError(f"--ray needs Ray: {pip_install('ray')}") from None
    local = {"num_cpus": usable_cores(), "include_dashboard": False}
    try:
        ray.init(address=address or "local", **({} if address else local))
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BagError(f"no Ray cluster at {address!r}: {error}") from error
    try:
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(do)
        futures = [task.remote(*arguments) for arguments in tasks]
        for future in futures:
            try:
                yield ray.get(future)
            except ray.exceptions.RayError as error:
                raise BagError(f"a task on Ray failed: {error}") from error
    finally:
        ray.shutdown()
