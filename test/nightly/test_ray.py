# SPDX-License-Identifier: Apache-2.0
"""Bags on Ray, with two workers: the same bytes as on one machine, whoever is killed. The test extra is without Ray:
for it is large, and starting it takes longer than all that is segmented here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import drives
import pytest
from drives import EXACT, PERIOD_NS, START_NS, Recorded, Segment, write_bag
from waiting import wait_until

pytestmark = [
    pytest.mark.slow,  # Ray starts a cluster
    pytest.mark.skipif(
        subprocess.call([sys.executable, "-c", "import ray"], stderr=-3) != 0, reason="no Ray here"
    ),
]
LIMIT_S = 120


def ray_workers() -> Iterator[tuple[int, str]]:
    """Process ids and names of Ray's workers; the name is that of the task in work, or IDLE."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if name.startswith("ray::"):
            yield int(process.name), name


def writer(partial: Path) -> int | None:
    """Ray's worker that has the lock of an unfinished bag open."""
    for number, _ in ray_workers():
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{number}/fd").iterdir()]
        except OSError:
            continue
        if str(partial / "lock") in links:
            return number
    return None


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """A long bag and a short one."""
    folder = tmp_path_factory.mktemp("drives")
    frames = drives.images(3, 320, 240)
    found = []
    for name, seconds in (("a", 30), ("b", 2)):
        times = [START_NS + index * PERIOD_NS for index in range(seconds * 10)]
        recorded = [
            Recorded("/front/image_raw", drives.IMAGE, time_ns, drives.image(frames[index % 3], time_ns))
            for index, time_ns in enumerate(times)
        ]
        found.append(write_bag(folder / name, recorded))
    return found


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(random_model: Path) -> Iterator[Start]:
    """``canet segment-bag --ray`` as a process of its own, with two workers."""
    started = []

    def begin(*arguments: object) -> subprocess.Popen[bytes]:
        code = "import os, sys; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:2]);"
        code += "from canet_ros.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "segment-bag", *arguments, "--ray", "--model", random_model]
        started.append(subprocess.Popen(list(map(str, [*command, *EXACT]))))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bag_whose_worker_is_killed_is_done_again(
    sources: Sequence[Path], segment: Segment, start: Start, tmp_path: Path
) -> None:
    options = ("--every", "2", "--camera-rate", "4", "--split-duration", "1")
    assert segment(*sources, tmp_path / "here", *options) == 0
    driver = start(*sources, tmp_path / "ray", *options)
    partial = tmp_path / "ray" / "a.partial"
    wait_until((partial / "progress.json").exists, "a file of the bag", LIMIT_S)
    number = writer(partial)
    assert number is not None
    os.kill(number, signal.SIGKILL)
    assert driver.wait(LIMIT_S) == 0
    assert files(tmp_path / "ray") == files(tmp_path / "here")


def test_a_killed_driver_goes_on_where_it_was(
    sources: Sequence[Path], segment: Segment, start: Start, tmp_path: Path
) -> None:
    """The files that are finished are kept, and the bag that was whole is not touched."""
    long, short = sources
    options = ("--split-duration", "1")
    assert segment(short, long, tmp_path / "here", *options) == 0
    driver = start(short, long, tmp_path / "ray", *options)
    progress = tmp_path / "ray" / "a.partial" / "progress.json"
    wait_until(
        lambda: (tmp_path / "ray" / "b").exists() and progress.exists(),
        "one bag and a file of another",
        LIMIT_S,
    )
    driver.kill()
    driver.wait()
    wait_until(lambda: not list(ray_workers()), "the end of Ray", LIMIT_S)
    whole = (tmp_path / "ray" / "b" / "metadata.yaml").stat().st_mtime_ns
    begun = (tmp_path / "ray" / "a.partial" / "bag" / "a_0.mcap").stat().st_ino
    assert start(short, long, tmp_path / "ray", *options, "--resume").wait(LIMIT_S) == 0
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert (tmp_path / "ray" / "b" / "metadata.yaml").stat().st_mtime_ns == whole
    assert (tmp_path / "ray" / "a" / "a_0.mcap").stat().st_ino == begun
