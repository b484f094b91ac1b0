# SPDX-License-Identifier: Apache-2.0
"""Bags, and groups of their pictures, as tasks on a cluster. Ray is an extra: it is large, and only a cluster needs it.

A bag's task reads it, hands its pictures to tasks that take a core or a GPU each, and writes what comes back with the
writer, and in the order, of one machine. Whichever worker is killed, its task is done again by another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from canet_ros.bags.bag import BagError, Message
from canet_ros.bags.picture_work import Awaited, Picture
from canet_ros.hints import pip_install
from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.steadying import Steadying
from canet_ros.machine import usable_cores

T = TypeVar("T")
# What one task is given: CDR and type of each picture's message. It returns who made them, and the pictures.
Entries = list[tuple[bytes, str]]
MakePictures = Callable[[Entries], tuple[Mapping[str, str], list[Picture]]]

_GROUP, _GROUP_BYTES = 8, 8 << 20
# Enough for two groups on each of 16 cores; a bag's task cannot read and write for many more.
_MOST_AHEAD, _MOST_AHEAD_BYTES = 256, 512 << 20
_CORES_A_BAG = 16


def connect(address: str) -> None:
    """Go to the cluster at the address, as ``ray.init`` takes it; empty: start one of this machine's cores.

    Raises:
        BagError: Ray is missing, or there is no cluster at the address.
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


def disconnect() -> None:
    import ray

    ray.shutdown()


def workers(gpus: int) -> int:
    """How many groups the cluster can have in work: its GPUs where each takes one, else its cores."""
    import ray

    return max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)))


def bags_on_ray(
    do: Callable[..., T], tasks: Sequence[tuple[Any, ...]], gpus: int, divided: bool
) -> Iterator[T | BagError]:
    """What ``do`` returns for each of the bags, in their order; an error where a task ended with an exception.

    Args:
        divided: a bag's task takes no core, for its pictures do, and so many are begun that these have enough to do;
            else it takes a core, and a GPU where ``gpus`` is 1.
    """
    import ray

    cores = 0 if divided else 1
    task = ray.remote(num_cpus=cores, num_gpus=gpus * cores, max_retries=-1, scheduling_strategy="SPREAD")(do)
    results: dict[int, T | BagError] = {}
    running: dict[Any, int] = {}
    at_once = 1 + -(-workers(gpus) // _CORES_A_BAG) if divided else workers(gpus)
    begun = shown = 0
    while shown < len(tasks):
        while begun < len(tasks) and len(running) < at_once:
            running[task.remote(*tasks[begun])] = begun
            begun += 1
        (done,), _ = ray.wait(list(running))
        number = running.pop(done)
        try:
            results[number] = _result(done)
        except BagError as error:
            results[number] = error
        while shown in results:
            yield results.pop(shown)
            shown += 1


def one_on_ray(do: Callable[[], T], gpus: int) -> T:
    """What ``do`` returns where pictures are made.

    Raises:
        BagError: it ended with an exception.
    """
    return _result(_picture_task(gpus).remote(do))  # type: ignore[no-any-return]


class PicturesOnRay:
    """Pictures in groups, each a task on a core of its own, or a GPU.

    Args:
        make: what the task does; for ``made_by`` it must be a worker that chose the same engine.
    """

    def __init__(
        self, make: MakePictures, classes: ClassTable, made_by: Mapping[str, str], gpus: int
    ) -> None:
        self.classes = classes
        self.ahead = min(2 * _GROUP * workers(gpus), _MOST_AHEAD)
        self._make = make
        self._task = _picture_task(gpus)
        self._made_by = dict(made_by)
        self._group = _Group(self._begin)
        self._bytes = 0
        self._fewer = threading.Condition()

    def go_on_from(self, shown: Mapping[str, Steadying]) -> None:
        if shown:
            raise BagError("--steady does not go with groups of pictures")

    def submit(self, message: Message) -> Awaited:
        size = len(message.data)
        with self._fewer:
            self._fewer.wait_for(lambda: self._bytes == 0 or self._bytes + size <= _MOST_AHEAD_BYTES)
            self._bytes += size
        while (picture := self._group.add(message, self._taken)) is None:
            self._group = _Group(self._begin)
        return picture

    def _begin(self, entries: Entries) -> Callable[[], list[Picture]]:
        reference = self._task.remote(self._make, entries)

        def pictures() -> list[Picture]:
            made_by, made = _result(reference)
            different = [key for key in self._made_by if made_by.get(key) != self._made_by[key]]
            if different:
                key = different[0]
                raise BagError(
                    f"workers differ in their {key}, {self._made_by[key]} and {made_by.get(key)}: name --engine, "
                    "--precision and --device, and have one version and one model everywhere"
                )
            return made  # type: ignore[no-any-return]

        return pictures

    def _taken(self, size: int) -> None:
        with self._fewer:
            self._bytes -= size
            self._fewer.notify()


class _Group:
    """Pictures that one task is given: when there are enough, or when the first of them is waited for."""

    def __init__(self, begin: Callable[[Entries], Callable[[], list[Picture]]]) -> None:
        self._begin = begin
        self._entries: Entries = []
        self._result: Callable[[], list[Picture]] | None = None
        self._made: list[Picture] | None = None
        self._lock = threading.Lock()

    def add(self, message: Message, taken: Callable[[int], None]) -> Awaited | None:
        """A place in the group; None: it is at work already."""
        with self._lock:
            if self._result is not None:
                return None
            self._entries.append((message.data, message.connection.msgtype))
            place = _Place(self, len(self._entries) - 1, lambda: taken(len(message.data)))
            if len(self._entries) == _GROUP or sum(len(data) for data, _ in self._entries) >= _GROUP_BYTES:
                self._start()
            return place

    def picture(self, place: int) -> Picture:
        with self._lock:
            if self._result is None:
                self._start()
        assert self._result is not None
        if self._made is None:
            self._made = self._result()
        return self._made[place]

    def _start(self) -> None:
        self._result = self._begin(self._entries)
        self._entries = []


class _Place:
    """A picture in its group."""

    def __init__(self, group: _Group, number: int, taken: Callable[[], None]) -> None:
        self._group, self._number, self._taken = group, number, taken

    def result(self) -> Picture:
        picture = self._group.picture(self._number)
        self._taken()
        return picture


def _call(do: Callable[..., T], *arguments: Any) -> T:
    return do(*arguments)


def _picture_task(gpus: int) -> Any:
    import ray

    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(_call)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if error.cause is not None else error
        if isinstance(cause, BagError):
            raise cause from None
        raise BagError(f"a task on Ray failed: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise BagError(f"a task on Ray failed: {error}") from error
