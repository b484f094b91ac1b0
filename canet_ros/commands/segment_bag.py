# SPDX-License-Identifier: Apache-2.0
"""``canet segment-bag``: recorded drives, segmented offline."""

from __future__ import annotations

import argparse
import functools
import glob
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import cv2
from tqdm import tqdm

import canet_ros
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.files import require_new, require_writable, write_json
from canet_ros.formats import parse_groups
from canet_ros.machine import usable_cores
from canet_ros.model.model_folder import find_model
from canet_ros.names import MASK_SIZES, PALETTES
from canet_ros.pipeline.camera_transform import read_views
from canet_ros.pipeline.drawing import DEFAULT_OUTPUTS, OUTPUTS
from canet_ros.pipeline.outputs import COMPRESSED
from canet_ros.pipeline.segmenter import Segmenter

if TYPE_CHECKING:
    from canet_ros.bags.addresses import Address
    from canet_ros.bags.bag import BagError
    from canet_ros.bags.frame_processing import FrameProcessorPool
    from canet_ros.bags.progress import Progress

Job = tuple["Path | Address", "Path | Address"]
Outcome = Union[dict[str, Any], "BagError"]
DAMAGED = 3
# Each stream holds the network's memory for one image.
MAX_STREAMS = 8


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
    parser.add_argument(
        "--topics", nargs="+", action="extend", metavar="TOPIC", help="image topics (default: all)"
    )
    parser.add_argument(
        "--start",
        type=_time_ns,
        metavar="S",
        help="start time: seconds from the beginning, or since 1970",
    )
    parser.add_argument("--end", type=_time_ns, metavar="S", help="end time, exclusive")
    parser.add_argument(
        "--duration", type=_time_ns, metavar="S", help="seconds from --start, instead of --end"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="segment every N-th image of each camera"
    )
    parser.add_argument(
        "--camera-rate", type=float, default=0.0, metavar="HZ", help="maximum rate per camera"
    )
    parser.add_argument(
        "--split-size",
        type=float,
        default=0.0,
        metavar="MB",
        help="begin a new file of OUT after this size of IN's messages (default: split as IN is)",
    )
    parser.add_argument(
        "--split-duration",
        type=float,
        default=0.0,
        metavar="S",
        help="begin a new file of OUT after this duration",
    )
    parser.add_argument(
        "--only-results", action="store_true", help="write only the results, to be played beside the original"
    )
    parser.add_argument(
        "--outputs",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"results to write, of {', '.join(OUTPUTS)} (default: {' '.join(DEFAULT_OUTPUTS)})",
    )
    parser.add_argument("--mask-size", default="image", choices=MASK_SIZES, help="size of the results")
    parser.add_argument("--alpha", type=float, default=0.5, help="weight of the colours in the overlay, 0..1")
    parser.add_argument("--jpeg-quality", type=int, default=80, help="of the overlays, 1..100")
    parser.add_argument("--legend", action="store_true", help="draw the class names into the overlay")
    parser.add_argument("--palette", default="dataset", choices=PALETTES)
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="X",
        help="pixels below this confidence become unlabelled, 0..1",
    )
    parser.add_argument(
        "--groups",
        default="",
        metavar="YAML",
        help="a mask for each group of classes, as {drivable: [road], people: [pedestrian, bicyclist]}",
    )
    parser.add_argument(
        "--regions",
        nargs="+",
        default=[],
        metavar="X,Y,W,H",
        help="for each of --topics the region to segment, in pixels; '': all",
    )
    parser.add_argument(
        "--rotations",
        nargs="+",
        type=int,
        default=[],
        metavar="DEGREES",
        help="clockwise rotation that makes the image of each of --topics upright: 0, 90, 180 or 270",
    )
    parser.add_argument(
        "--ignore-masks",
        nargs="+",
        default=[],
        metavar="FILE",
        help="for each of --topics an image that is white where pixels are ignored; '': none",
    )
    parser.add_argument(
        "--steady", action="store_true", help="apply the temporal filter, as the node's parameter steady"
    )
    parser.add_argument("--resume", action="store_true", help="continue after the last finished file of OUT")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace OUT, an unfinished run and the outputs below, except labels that were changed by hand",
    )
    parser.add_argument("--force-labels", action="store_true", help="replace those too")
    parser.add_argument(
        "--salvage", action="store_true", help=f"exit 0, not {DAMAGED}, when parts of IN are damaged"
    )
    parser.add_argument(
        "--video", type=_path, metavar="FILE.mp4", help="write the overlays as videos, one per camera"
    )
    parser.add_argument(
        "--masks", type=_path, metavar="DIR", help="write a PNG of class ids per image, and stamps.csv"
    )
    parser.add_argument(
        "--labels", type=_path, metavar="DIR", help="write images and masks in the layout of canet train"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="process each IN as a task on this Ray cluster (default ADDRESS: this machine's cores)",
    )
    parser.add_argument("--json", type=_path, metavar="FILE", help="write a summary as JSON")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from canet_ros.bags.bag import BagError
    from canet_ros.bags.frames import STAMPS_FILE, require_video

    options = _options(arguments)  # validates them before any work
    lists = (options.ignore_masks, options.regions, options.rotations)
    read_views(max(len(options.topics), *map(len, lists)), *lists)
    outs = _outs(arguments.input, arguments.out)
    missing = [str(source) for source in arguments.input if not source.exists()]
    if missing:
        raise BagError(f"{', '.join(missing)} does not exist")
    # Check that files can be written before the work, not after it.
    require_writable(arguments.json, arguments.video)
    if arguments.video:
        require_video(arguments.video)
    if not (arguments.force or arguments.resume):
        require_new(arguments.json, *(_video_of(arguments, out.name) for out in outs))
    for folder in filter(None, (arguments.masks, arguments.labels)):
        require_writable(folder / STAMPS_FILE)
    arguments.keep_files = arguments.resume  # separate from resume, which Ray's tasks set for bags
    jobs = []
    status = 0
    for source, out in zip(arguments.input, outs):
        if not (arguments.resume and _is_complete(out)):
            jobs.append((source, out))
        elif problem := _write_missing_extras(out, arguments):
            print(f"canet segment-bag: {problem}", file=sys.stderr)
            status = 1
    done = []
    for outcome in _locally(jobs, arguments) if arguments.ray is None else _on_ray(jobs, arguments):
        if isinstance(outcome, BagError):
            if len(outs) == 1:
                raise outcome
            print(f"canet segment-bag: {outcome}", file=sys.stderr)
            status = 1
            continue
        done.append(outcome)
        if outcome["problem"]:
            print(f"canet segment-bag: {outcome['problem']}", file=sys.stderr)
            status = 1
        if outcome["damage"] and not arguments.salvage and status == 0:
            status = DAMAGED
    if arguments.json:
        write_json(arguments.json, done)
    return status


def _is_complete(out: Path | Address) -> bool:
    return out.exists() if isinstance(out, Path) else out.is_complete()


def _locally(jobs: Sequence[Job], arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Segment one bag after another."""
    for job in jobs:
        yield _segment(job, arguments, min(usable_cores(), MAX_STREAMS))


def _on_ray(jobs: Sequence[Job], arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Segment bags as Ray tasks; see ``bags.on_ray``."""
    from canet_ros.bags.on_ray import bags_on_ray
    from canet_ros.bags.output import partial_path

    if not jobs:
        return
    # Workers have other working directories.
    for name in ("video", "masks", "labels"):
        if getattr(arguments, name):
            setattr(arguments, name, getattr(arguments, name).absolute())
    arguments.model = str(find_model(arguments.model).absolute())
    arguments.ignore_masks = [
        file and str(Path(file).expanduser().absolute()) for file in arguments.ignore_masks
    ]
    for out in (out for _, out in jobs if isinstance(out, Path)):
        if arguments.force:
            shutil.rmtree(partial_path(out), ignore_errors=True)
        elif out.exists():
            raise ValueError(f"{out} exists: give another name, or --force to replace it")
        elif partial_path(out).exists() and not arguments.resume:
            raise ValueError(f"{partial_path(out)} is unfinished: --resume continues it, --force starts over")
    # A task whose worker was killed is repeated and resumes the bag.
    again = argparse.Namespace(**{**vars(arguments), "resume": True})
    gpus = 1 if arguments.device.startswith("cuda") else 0
    absolute = [(source.absolute(), out.absolute()) for source, out in jobs]
    yield from bags_on_ray(_segment, [(job, again, 1) for job in absolute], arguments.ray, gpus)


@functools.lru_cache(maxsize=1)
def _segmenter(flags: tuple[tuple[str, str], ...], streams: int) -> Segmenter:
    # Each image is processed by one thread, and there are as many threads as cores.
    cv2.setNumThreads(1)
    return load_segmenter(argparse.Namespace(**dict(flags)), streams=streams)


def _segment(job: Job, arguments: argparse.Namespace, streams: int) -> Outcome:
    """Segment a bag; a process keeps its engine for the next one."""
    from canet_ros.bags.frame_processing import FrameProcessorPool

    names = ("model", "device", "engine", "precision", "resolution")
    segmenter = _segmenter(tuple((name, getattr(arguments, name)) for name in names), streams)
    with FrameProcessorPool(segmenter, _options(arguments)) as pool:
        return _segment_with(pool, _provenance(segmenter, arguments), job, arguments)


def _segment_with(
    pool: FrameProcessorPool, provenance: dict[str, str], job: Job, arguments: argparse.Namespace
) -> Outcome:
    """Summary of a bag for --json, or the error."""
    from canet_ros.bags.addresses import local_copies
    from canet_ros.bags.bag import BagError
    from canet_ros.bags.progress import Progress
    from canet_ros.bags.segmentation import segment_bag

    start_s = time.monotonic()
    options, progress = _options(arguments), Progress()
    try:
        with local_copies(*job, arguments.force) as (source, out), _Bar(source.name) as bar:
            # OUT exists if a worker was killed after finishing it, or if its upload failed.
            if not (arguments.resume and out.exists()) or arguments.force:
                progress = segment_bag(
                    source, out, pool, options, provenance, arguments.resume, arguments.force, bar.show
                )
            problem = _write_extras(out, job[1], arguments)
    except BagError as error:
        return error
    except KeyboardInterrupt:
        print("stopped: --resume continues after the last finished file of OUT", file=sys.stderr)
        raise
    _print_notes(job[0], progress)
    skipped = f", {progress.undecodable} skipped" if progress.undecodable else ""
    print(f"segmented {progress.segmented} images of {len(progress.cameras)} cameras{skipped}: {job[1]}")
    return {
        "input": str(job[0]),
        "output": str(job[1]),
        "messages_read": progress.read,
        "pictures": progress.segmented,
        "undecodable": progress.undecodable,
        "undecodable_pictures": [
            {"topic": topic, "stamp_ns": stamp, "problem": problem}
            for topic, stamp, problem in progress.undecodable_frames
        ],
        "notes": list(progress.notes),
        "damage": list(progress.losses.problems),
        "messages_lost": progress.losses.count,
        "problem": problem,
        "seconds": round(time.monotonic() - start_s, 3),
    }


def _print_notes(source: Path | Address, progress: Progress) -> None:
    for sentence in progress.notes:
        print(f"{source}: {sentence}", file=sys.stderr)
    for topic, stamp_ns, problem in progress.undecodable_frames:
        print(
            f"{topic}: the image of {stamp_ns // 10**9}.{stamp_ns % 10**9:09d} was skipped: {problem}",
            file=sys.stderr,
        )
    losses = progress.losses
    for sentence in losses.problems:
        print(f"{source}: {sentence}", file=sys.stderr)
    if losses.problems:
        lost = (
            f"at least {losses.count} messages are lost"
            if losses.count
            else "the number of lost messages is unknown"
        )
        print(f"{source} is damaged: {lost}", file=sys.stderr)


def _write_missing_extras(out: Path | Address, arguments: argparse.Namespace) -> str:
    """Write the missing extra files of a complete bag; returns a problem, or an empty string."""
    print(f"{out} is already complete")
    if isinstance(out, Path):
        return _write_extras(out, out, arguments)
    if not (arguments.video or arguments.masks or arguments.labels):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        out.download(Path(folder) / out.name)
        return _write_extras(Path(folder) / out.name, out, arguments)


def _write_extras(bag_here: Path, out: Path | Address, arguments: argparse.Namespace) -> str:
    """Write video, masks and labels from the finished bag; returns a problem, or an empty string.

    With several bags they go to folders of their names. ``--resume`` keeps existing files, which are complete.
    """
    from canet_ros.bags.frames import STAMPS_FILE, write_labels, write_masks, write_videos
    from canet_ros.bags.label_folder import LabelFolder
    from canet_ros.bags.reading import open_bag

    if not (arguments.video or arguments.masks or arguments.labels):
        return ""
    several = len(arguments.input) > 1
    problems = []

    def folder_of(path: Path, in_splits: bool) -> LabelFolder:
        folder = path / out.name if several else path
        return LabelFolder(folder, in_splits, arguments.force, arguments.force_labels)

    try:
        with open_bag(bag_here, bag_here) as bag:
            if arguments.masks:
                masks = folder_of(arguments.masks, in_splits=False)
                if not (arguments.keep_files and (masks.folder / STAMPS_FILE).exists()):
                    write_masks(bag, masks)
                    print(masks.summary("masks"))
                    problems.append(masks.problem())
            if arguments.labels:
                labels = folder_of(arguments.labels, in_splits=True)
                write_labels(bag, labels)
                print(labels.summary("images with labels"))
                problems.append(labels.problem())
            if path := _video_of(arguments, out.name):
                there = [path, *path.parent.glob(f"{glob.escape(path.stem)}_*{path.suffix}")]
                if not (arguments.keep_files and any(file.exists() for file in there)):
                    print(f"video: {', '.join(map(str, write_videos(bag, path, arguments.force)))}")
    except Exception as error:  # OpenCV and FFmpeg raise many types; the bag is complete
        return f"{out} is complete, but its extra files are not: {error}; --resume writes the missing ones"
    return "; ".join(filter(None, problems))


def _video_of(arguments: argparse.Namespace, name: str) -> Path | None:
    """Path of the video; with several bags it includes the bag's name."""
    path: Path | None = arguments.video
    if path is None or len(arguments.input) == 1:
        return path
    return path.with_name(f"{path.stem}_{name}{path.suffix}")


class _Bar:
    """Progress bar in seconds of the bag, with frame rate and number of skipped frames."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None
        self._start_s = time.monotonic()
        self._before: int | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, bag: Any, progress: Any) -> None:
        if self._bar is None:
            form = (
                "{desc} {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s of the bag, {remaining} left{postfix}"
            )
            total = max((bag.end_ns - bag.start_ns) / 1e9, 1e-9)
            self._bar = tqdm(total=total, desc=self._name, bar_format=form, file=sys.stderr)
            self._before = progress.segmented
        frames = progress.segmented - (self._before or 0)
        rate = frames / max(time.monotonic() - self._start_s, 1e-9)
        at_s = min(max((progress.log_ns - bag.start_ns) / 1e9, 0.0), self._bar.total)
        self._bar.set_postfix_str(
            f"{progress.segmented} frames, {rate:.1f} a second, {progress.undecodable} skipped", refresh=False
        )
        self._bar.update(max(0.0, at_s - self._bar.n))


def _options(arguments: argparse.Namespace) -> Any:
    from canet_ros.bags.options import Options

    outputs = _words(arguments.outputs) or DEFAULT_OUTPUTS
    groups = [f"groups/{name}" for name in parse_groups(arguments.groups)]
    known = [*OUTPUTS, *groups, *(f"{group}{COMPRESSED}" for group in groups)]
    unknown = [name for name in outputs if name not in known]
    if unknown:
        raise ValueError(f"--outputs {', '.join(unknown)}: choose from {', '.join(known)}")
    if not set(groups) & {name.removesuffix(COMPRESSED) for name in outputs}:
        outputs = (*outputs, *(f"{group}{COMPRESSED}" for group in groups))
    for given, needed in ((arguments.video, "overlay"), (arguments.masks or arguments.labels, "mask")):
        if given and not {needed, f"{needed}/compressed"} & set(outputs):
            raise ValueError(f"--outputs must include {needed}/compressed for --video, --masks or --labels")
    for name, low, high in (
        ("every", 1, math.inf),
        ("camera_rate", 0, 1000),
        ("split_size", 0, sys.float_info.max),
        ("split_duration", 0, sys.float_info.max),
        ("min_confidence", 0, 1),
        ("alpha", 0, 1),
        ("jpeg_quality", 1, 100),
    ):
        if not low <= getattr(arguments, name) <= high:
            limits = f"{low} or more" if high >= sys.float_info.max else f"{low} to {high}"
            raise ValueError(f"--{name.replace('_', '-')} must be {limits}, not {getattr(arguments, name):g}")
    if (arguments.split_size or arguments.split_duration) and arguments.out.suffix == ".mcap":
        raise ValueError(f"{arguments.out} is one file: give a folder for --split-size and --split-duration")
    end_ns = arguments.end
    if arguments.duration is not None:
        if end_ns is not None:
            raise ValueError("give --end or --duration, not both")
        end_ns = (arguments.start or 0) + arguments.duration
    return Options(
        topics=_words(arguments.topics),
        start_ns=arguments.start,
        end_ns=end_ns,
        every=arguments.every,
        camera_rate_hz=arguments.camera_rate,
        split_bytes=round(arguments.split_size * 1e6),
        split_ns=round(arguments.split_duration * 1e9),
        only_results=arguments.only_results,
        outputs=tuple(dict.fromkeys(outputs)),
        mask_size=arguments.mask_size,
        overlay_alpha=arguments.alpha,
        jpeg_quality=arguments.jpeg_quality,
        legend=arguments.legend,
        palette=arguments.palette,
        steady=arguments.steady,
        min_confidence=arguments.min_confidence,
        groups=arguments.groups,
        regions=tuple(arguments.regions),
        rotations=tuple(arguments.rotations),
        ignore_masks=tuple(arguments.ignore_masks),
    )


def _outs(sources: Sequence[Path | Address], out: Path | Address) -> list[Path | Address]:
    """The output of each input: OUT itself, or a bag of the input's name in OUT."""
    resolved = [source.resolve() for source in sources]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise ValueError(f"{sources[index]} is given twice")
    if len(sources) == 1:
        return [out]
    if out.suffix == ".mcap":
        raise ValueError(f"{out}: several bags become a folder of bags; give a folder")
    # Prefix names with parent folders until they are unique.
    names = [_bag_name(path) for path in resolved]
    parents = [path.parent for path in resolved]
    while len(set(names)) < len(names) and any(parent.name for parent in parents):
        names = [
            name if names.count(name) == 1 or not parent.name else f"{parent.name}_{name}"
            for name, parent in zip(names, parents)
        ]
        parents = [parent.parent for parent in parents]
    for index, name in enumerate(names):
        if name in names[:index]:  # drive.mcap and drive.db3
            raise ValueError(f"two inputs are called {name}: segment them one by one")
    return [out / name for name in names]


def _bag_name(path: Path | Address) -> str:
    name = path.name
    for suffix in (".zstd", ".zst", ".mcap", ".db3"):
        name = name.removesuffix(suffix)
    return name


def _provenance(segmenter: Segmenter, arguments: argparse.Namespace) -> dict[str, str]:
    options = asdict(_options(arguments))
    return {
        "version": canet_ros.__version__,
        "model": segmenter.spec.name,
        "model_sha256": segmenter.graph_hash,
        "engine": segmenter.engine.name,
        "precision": segmenter.engine.precision,
        "device": segmenter.engine.device,
        "resolution": segmenter.resolution_text,
        "options": json.dumps(options),
    }


def _words(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(word for value in values or () for word in value.split(",") if word)


def _location(text: str) -> Path | Address:
    from canet_ros.bags.addresses import parse_location

    return parse_location(text)


def _path(text: str) -> Path:
    path = _location(text)
    if not isinstance(path, Path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a local path: only IN and OUT may be URLs")
    return path


def _time_ns(text: str) -> int:
    try:
        time_ns = int(Decimal(text) * 10**9)
    except (InvalidOperation, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds") from None
    if not 0 <= time_ns < 2**63:
        raise argparse.ArgumentTypeError(f"{text} s is out of range")
    return time_ns
