# SPDX-License-Identifier: Apache-2.0
"""``canet report``: a recorded drive on one page."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from canet_ros.commands import add_force_argument, add_topics_argument, local_path, number
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.commands.segment_bag import DAMAGED
from canet_ros.files import require_writable, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=local_path, help="rosbag2, segmented or not: folder or file")
    parser.add_argument(
        "--out", type=local_path, default=Path("report.html"), help="page (default: report.html)"
    )
    add_force_argument(parser)
    parser.add_argument(
        "--frames",
        type=number("--frames", int, 1),
        default=300,
        help="maximum number of images per camera, evenly spaced (default: 300)",
    )
    add_topics_argument(parser)
    add_model_arguments(parser, keep_aspect_ratio=True)


def run(arguments: argparse.Namespace) -> int:
    from canet_ros.bags.cameras import choose_cameras
    from canet_ros.bags.reading import open_bag
    from canet_ros.bags.report import CameraReport, TopicTimes, render_page
    from canet_ros.bags.samples import samples

    require_writable(arguments.out, replace=arguments.force)
    with tempfile.TemporaryDirectory() as work, open_bag(arguments.bag, Path(work)) as bag:
        cameras = choose_cameras(bag, arguments.topics, lambda text: print(text, file=sys.stderr))
        segmenter = load_segmenter(arguments)
        times: dict[str, TopicTimes] = defaultdict(TopicTimes)
        reports: list[CameraReport] = []
        left_out: list[str] = []
        for message in bag.messages():
            times[message.connection.topic].add(message.log_ns)
        with tqdm(unit="image") as bar:
            for camera in cameras:
                report = CameraReport(camera.topic)
                # By number, not time: one message from an unset clock would stretch time steps over the whole drive.
                every = -(-bag.counts.get(camera.topic, 0) // arguments.frames) or 1
                for sample in samples(bag, camera, segmenter, left_out.append, every=every):
                    report.add(sample, len(segmenter.spec.classes))
                    bar.update()
                reports.append(report)
        left_out += bag.losses.problems
    if not any(report.times_ns for report in reports):
        raise ValueError(f"no image of {arguments.bag} could be decoded")
    facts = {
        "lasts": f"{(bag.end_ns - bag.start_ns) / 1e9:.1f} s",
        "model": segmenter.spec.name,
        "engine": f"{segmenter.engine.name} {segmenter.engine.precision}",
        **({"left out:": "; ".join(left_out)} if left_out else {}),
    }
    text = render_page(arguments.bag.name, bag.start_ns, reports, times, segmenter.spec.classes, facts)
    write_text(arguments.out, text)
    print(f"{sum(len(report.times_ns) for report in reports)} pictures: {arguments.out}")
    return status_of(arguments.bag, left_out)


def status_of(bag: Path, left_out: Sequence[str]) -> int:
    """Report what could not be read of a bag; returns the exit status."""
    for sentence in dict.fromkeys(left_out):
        print(f"{bag}: {sentence}", file=sys.stderr)
    return DAMAGED if left_out else 0
