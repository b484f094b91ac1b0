# SPDX-License-Identifier: Apache-2.0
"""``canet segment-bag``: recorded drives, segmented offline."""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import cv2
from tqdm import tqdm

from canet_ros.commands import add_force_argument, add_topics_argument, argument, local_path, number
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.commands.pipeline_arguments import (
    add_parameter_arguments,
    add_pipeline_arguments,
    option_values,
)
from canet_ros.files import require_writable, write_json
from canet_ros.formats import parse_groups
from canet_ros.machine import usable_cores
from canet_ros.model.model_folder import find_model
from canet_ros.pipeline.outputs import (
    COMPRESSED,
    DEFAULT_OUTPUTS,
    OUTPUTS,
    POINTS,
    is_cloud,
    output_names,
    point_outputs,
)
from canet_ros.pipeline.segmenter import Segmenter

if TYPE_CHECKING:
    from canet_ros.bags.addresses import Location
    from canet_ros.bags.bag import BagError
    from canet_ros.bags.options import Options
    from canet_ros.bags.progress import Progress
    from canet_ros.bags.reading import Bag

Job = tuple["Location", "Location"]
Outcome = Union[dict[str, Any], "BagError"]
DAMAGED = 3
# Each stream holds the network's memory for one image.
MAX_STREAMS = 8
_SUFFIXES = re.compile(r"(\.mcap|\.db3)?(\.zstd|\.zst)?$")
_CLOUD_PARAMETERS = ("cloud_topics", "cloud_extrinsics", "depth_topics", "sync_slop", "organized_points")
_PARAMETERS = ("mask_size", "jpeg_quality", "min_object_area", "shares_smoothing", *_CLOUD_PARAMETERS)


def _location(text: str) -> Location:
    return text.rstrip("/") if "://" in text else Path(text)


@argument
def _time_ns(text: str) -> int:
    try:
        time_ns = int(Decimal(text) * 10**9)
    except (InvalidOperation, ValueError, OverflowError):
        time_ns = -1
    if not 0 <= time_ns < 2**63:
        raise ValueError(f"expected a time in seconds, got {text!r}")
    return time_ns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=_location,
        nargs="+",
        metavar="IN",
        help="rosbag2: folder, .mcap or .db3 file; or an fsspec URL such as s3://bucket/drive",
    )
    parser.add_argument(
        "out",
        type=_location,
        metavar="OUT",
        help="bag to write: a folder, or one file if it ends in .mcap; with several IN a folder of bags",
    )
    add_topics_argument(parser)
    for option, dest, text in (
        ("--start", "start_ns", "start time: seconds from the beginning, or since 1970"),
        ("--end", "end_ns", "end time, exclusive"),
        ("--duration", "duration_ns", "seconds from --start, instead of --end"),
        ("--split-duration", "split_ns", "begin a new file of OUT after this duration"),
    ):
        parser.add_argument(option, dest=dest, type=_time_ns, metavar="S", help=text)
    for option, dest, kind, lowest, metavar, text in (
        ("--every", "every", int, 1, "N", "segment every N-th image of each camera"),
        ("--camera-rate", "camera_rate_hz", float, 0, "HZ", "maximum rate per camera; 0: all images"),
        ("--split-size", "split_mb", float, 0, "MB", "begin a new file of OUT after this size of IN's data"),
    ):
        kind_of = number(option, kind, lowest)
        parser.add_argument(option, dest=dest, type=kind_of, default=kind(lowest), metavar=metavar, help=text)
    parser.add_argument(
        "--only-results", action="store_true", help="write only the results, to be played beside the original"
    )
    parser.add_argument(
        "--outputs",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help=f"results to write, of {', '.join(OUTPUTS)}, with --groups groups/NAME, groups/NAME/compressed and "
        "objects, with --cloud-topics or --depth-topics points, groups/NAME/points and groups/NAME/points_outside "
        f"(default: {' '.join(DEFAULT_OUTPUTS)}, all groups/NAME/compressed, and points)",
    )
    parser.add_argument("--resume", action="store_true", help="continue after the last finished file of OUT")
    add_force_argument(parser)
    parser.add_argument(
        "--salvage", action="store_true", help=f"exit 0, not {DAMAGED}, when parts of IN are damaged"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="process each IN as a task on this Ray cluster (default ADDRESS: this machine's cores)",
    )
    parser.add_argument("--json", type=local_path, metavar="FILE", help="write a summary as JSON")
    add_pipeline_arguments(parser, "each of --topics")
    add_parameter_arguments(parser, _PARAMETERS)
    add_model_arguments(parser, keep_aspect_ratio=True)


def run(arguments: argparse.Namespace) -> int:
    from canet_ros.bags.addresses import exists
    from canet_ros.bags.bag import BagError
    from canet_ros.bags.metadata import METADATA_FILE

    options = _options(arguments)  # check everything before any work
    lists = (options.regions, options.rotations, options.ignore_masks)
    options.camera_transforms(max(len(options.topics), *map(len, lists)))
    outs = _outputs_of(arguments.input, arguments.out)
    missing = [str(source) for source in arguments.input if not exists(source)]
    if missing:
        raise BagError(f"{', '.join(missing)} does not exist")
    require_writable(arguments.json, replace=arguments.force or arguments.resume)
    jobs = []
    for source, out in zip(arguments.input, outs):
        file = "" if isinstance(out, Path) or out.endswith(".mcap") else METADATA_FILE
        if arguments.resume and exists(out, file):
            print(f"{out} is already complete")
        else:
            jobs.append((source, out))
    status = 0
    done = []
    here = (_segment(job, arguments, min(usable_cores(), MAX_STREAMS)) for job in jobs)
    for outcome in here if arguments.ray is None else _on_ray(jobs, arguments):
        if isinstance(outcome, BagError):
            if len(outs) == 1:
                raise outcome
            print(f"canet segment-bag: {outcome}", file=sys.stderr)
            status = 1
            continue
        done.append(outcome)
        if outcome["damage"] and not arguments.salvage and status == 0:
            status = DAMAGED
    if arguments.json:
        write_json(arguments.json, done)
    return status


def _outputs_of(sources: Sequence[Location], out: Location) -> list[Location]:
    """The output of each input: OUT itself, or bags in OUT of the inputs' names, with their folders where equal."""
    if len(sources) == 1:
        return [out]
    if str(out).endswith(".mcap"):
        raise ValueError(f"{out}: several bags become a folder of bags; give a folder")
    paths = [str(source.resolve()) if isinstance(source, Path) else source for source in sources]
    parts = [_SUFFIXES.sub("", path).split("/") for path in paths]
    last = [own[-1] for own in parts]
    names = ["_".join(own[-2:]) if last.count(own[-1]) > 1 else own[-1] for own in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two inputs are called {twice[0]}: give each once, or segment them one by one")
    return [out / name if isinstance(out, Path) else f"{out}/{name}" for name in names]


def _on_ray(jobs: Sequence[Job], arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Segment bags as Ray tasks; see ``bags.on_ray``."""
    from canet_ros.bags.on_ray import bags_on_ray
    from canet_ros.bags.output import check_replaceable

    if not jobs:
        return
    for _, out in jobs:
        if isinstance(out, Path):
            check_replaceable(out, arguments.resume, arguments.force)
    # Workers have other working directories. A task whose worker was killed is repeated and resumes the bag.
    changed = {
        "model": str(find_model(arguments.model).absolute()),
        "ignore_masks": [file and str(Path(file).expanduser().absolute()) for file in arguments.ignore_masks],
        "resume": True,
    }
    again = argparse.Namespace(**{**vars(arguments), **changed})
    gpus = 1 if arguments.device.startswith("cuda") else 0
    absolute = [tuple(p.absolute() if isinstance(p, Path) else p for p in job) for job in jobs]
    tasks = [(job, again, 1) for job in absolute]
    yield from bags_on_ray(_segment, tasks, arguments.ray, gpus)


@functools.lru_cache(maxsize=1)
def _segmenter(flags: tuple[tuple[str, Any], ...], streams: int) -> Segmenter:
    # Each image is processed by one thread, and there are as many threads as cores.
    cv2.setNumThreads(1)
    return load_segmenter(argparse.Namespace(**dict(flags)), streams=streams)


def _segment(job: Job, arguments: argparse.Namespace, streams: int) -> Outcome:
    """Segment a bag; a process keeps its engine for the next one. Returns the entry for --json, or the error."""
    from canet_ros.bags.addresses import local_copies
    from canet_ros.bags.bag import BagError
    from canet_ros.bags.progress import Progress
    from canet_ros.bags.segmentation import segment_bag

    names = ("model", "device", "engine", "precision", "resolution")
    segmenter = _segmenter(tuple((name, getattr(arguments, name)) for name in names), streams)
    start_s = time.monotonic()
    options, progress = _options(arguments), Progress()
    resume, force = arguments.resume, arguments.force
    try:
        with local_copies(*job, force) as (source, out), _progress_bar(source.name) as show:
            # OUT exists if a worker was killed after finishing it, or if its upload failed.
            if force or not (resume and out.exists()):
                progress = segment_bag(source, out, segmenter, options, resume, force, show)
    except BagError as error:
        return error
    except KeyboardInterrupt:
        print("stopped: --resume continues after the last finished file of OUT", file=sys.stderr)
        raise
    _print_notes(job[0], progress)
    skipped = f", {progress.undecodable} skipped" if progress.undecodable else ""
    print(f"segmented {progress.segmented} images of {progress.cameras} cameras{skipped}: {job[1]}")
    return {
        "input": str(job[0]),
        "output": str(job[1]),
        "messages_read": progress.read,
        "images": progress.segmented,
        "undecodable": progress.undecodable,
        "undecodable_images": [
            {"topic": topic, "stamp_ns": stamp, "problem": problem}
            for topic, stamp, problem in progress.undecodable_frames
        ],
        "notes": progress.notes,
        "damage": list(progress.losses.problems),
        "messages_lost": progress.losses.count,
        "seconds": round(time.monotonic() - start_s, 3),
    }


def _print_notes(source: Location, progress: Progress) -> None:
    lines = [f"{source}: {sentence}" for sentence in progress.notes]
    lines += [
        f"{topic}: the image of {stamp_ns // 10**9}.{stamp_ns % 10**9:09d} was skipped: {problem}"
        for topic, stamp_ns, problem in progress.undecodable_frames
    ]
    if progress.losses.problems:
        count = progress.losses.count
        lost = f"at least {count} messages are lost" if count else "the number of lost messages is unknown"
        lines += [f"{source}: {sentence}" for sentence in progress.losses.problems]
        lines.append(f"{source} is damaged: {lost}")
    for line in lines:
        print(line, file=sys.stderr)


@contextlib.contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[Bag, Progress], None]]:
    """Progress bar in seconds of the bag, with numbers of frames; yields its update."""
    form = "{desc} {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s of the bag, {remaining} left{postfix}"
    # The delay keeps it from being shown before the bag is opened.
    with tqdm(total=1.0, desc=name, bar_format=form, file=sys.stderr, delay=1e-9) as bar:

        def show(bag: Bag, progress: Progress) -> None:
            bar.total = max((bag.end_ns - bag.start_ns) / 1e9, 1e-9)
            text = f"{progress.segmented} frames, {progress.undecodable} skipped"
            bar.set_postfix_str(text, refresh=False)
            bar.update(max(0.0, min((progress.log_ns - bag.start_ns) / 1e9, bar.total) - bar.n))

        yield show


def _options(arguments: argparse.Namespace) -> Options:
    from canet_ros.bags.options import Options

    outputs = _words(arguments.outputs) or DEFAULT_OUTPUTS
    groups = [f"groups/{name}" for name in parse_groups(arguments.groups)]
    known = output_names(parse_groups(arguments.groups))
    if arguments.cloud_topics or arguments.depth_topics:
        known += tuple(point_outputs(parse_groups(arguments.groups)))
        if not any(map(is_cloud, outputs)):
            outputs = (*outputs, POINTS)
    unknown = [name for name in outputs if name not in known]
    if unknown:
        raise ValueError(f"--outputs {', '.join(unknown)}: choose from {', '.join(known)}")
    if not set(groups) & {name.removesuffix(COMPRESSED) for name in outputs}:
        outputs = (*outputs, *(f"{group}{COMPRESSED}" for group in groups))
    if (arguments.split_mb or arguments.split_ns) and str(arguments.out).endswith(".mcap"):
        raise ValueError(f"{arguments.out} is one file: give a folder for --split-size and --split-duration")
    values = option_values(arguments, Options)
    if arguments.duration_ns is not None:
        if arguments.end_ns is not None:
            raise ValueError("give --end or --duration, not both")
        values["end_ns"] = (arguments.start_ns or 0) + arguments.duration_ns
    return Options(**{**values, "topics": _words(arguments.topics), "outputs": tuple(dict.fromkeys(outputs))})


def _words(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in value.split(",") if word)
