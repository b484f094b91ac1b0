# SPDX-License-Identifier: Apache-2.0
"""``canet pick``: the frames of a drive that are most worth labelling."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.commands.report import add_topics_argument, status_of
from canet_ros.files import write_picture

STEP_NS = 250_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="rosbag2, segmented or not: folder or file")
    parser.add_argument("--count", type=int, default=50, help="frames of each camera (default: 50)")
    parser.add_argument("--out", type=Path, required=True, help="folder for train/images and train/labels")
    add_topics_argument(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from canet_ros.bags.cameras import choose_cameras
    from canet_ros.bags.frames import FileNames
    from canet_ros.bags.reading import open_bag
    from canet_ros.bags.samples import candidate, chosen, samples

    if arguments.count < 1:
        raise ValueError(f"--count must be 1 or more, not {arguments.count}")
    images, labels = arguments.out / "train" / "images", arguments.out / "train" / "labels"
    total, names = 0, FileNames()
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as work, open_bag(arguments.bag, Path(work)) as bag:
        cameras = choose_cameras(bag, arguments.topics, lambda text: print(text, file=sys.stderr))
        segmenter = load_segmenter(arguments)
        for folder in (images, labels):
            folder.mkdir(parents=True, exist_ok=True)
        classes = len(segmenter.spec.classes)
        for camera in cameras:
            found = samples(bag, camera, segmenter, STEP_NS, _nothing, left_out.append)
            looked_at = tqdm(found, camera.topic, unit="picture")
            candidates = [candidate(sample, classes) for sample in looked_at]
            wanted = {candidates[index].log_ns for index in chosen(candidates, arguments.count)}
            # A second pass: pictures are large, and only a few are wanted.
            for sample in samples(bag, camera, segmenter, STEP_NS, _nothing, _nothing):
                if sample.log_ns not in wanted:
                    continue
                name = f"{names.name(camera.topic, sample.stamp_ns, sample.log_ns)}.png"
                size = (sample.image.shape[1], sample.image.shape[0])
                write_picture(images / name, sample.image)
                write_picture(labels / name, sample.segmentation.resized(size).mask)
                total += 1
        left_out += bag.all_losses().sentences
    if total == 0:
        raise ValueError(f"no picture of {arguments.bag} could be decoded")
    print(f"{total} pictures and pre-labels: {arguments.out}")
    return status_of(arguments.bag, left_out)


def _nothing(*_: object) -> None:
    pass
