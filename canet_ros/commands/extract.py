# SPDX-License-Identifier: Apache-2.0
"""``canet extract``: videos, masks and labels out of a segmented bag."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from canet_ros.commands import local_path
from canet_ros.commands.pick import add_label_force_arguments
from canet_ros.commands.report import status_of
from canet_ros.files import require_writable
from canet_ros.pipeline.video_file import require_pyav


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bag", type=local_path, help="rosbag2 with results of canet segment-bag or the node: folder or file"
    )
    parser.add_argument(
        "--video", type=local_path, metavar="FILE.mp4", help="write the overlays as videos, one per camera"
    )
    parser.add_argument(
        "--masks", type=local_path, metavar="DIR", help="write a PNG of class ids per image, and stamps.csv"
    )
    parser.add_argument(
        "--labels", type=local_path, metavar="DIR", help="write images and masks in the layout of canet train"
    )
    add_label_force_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from canet_ros.bags.frames import STAMPS_FILE, write_labels, write_masks, write_videos
    from canet_ros.bags.label_folder import LabelFolder
    from canet_ros.bags.reading import open_bag

    if not (arguments.video or arguments.masks or arguments.labels):
        raise ValueError("give one or more of --video, --masks and --labels")
    require_writable(arguments.video, replace=arguments.force)
    if arguments.video:
        require_pyav(arguments.video)
    for folder in filter(None, (arguments.masks, arguments.labels)):
        require_writable(folder / STAMPS_FILE)
    with tempfile.TemporaryDirectory() as work, open_bag(arguments.bag, Path(work)) as bag:
        if arguments.masks:
            masks = LabelFolder(arguments.masks, in_splits=False, replace=arguments.force_labels)
            write_masks(bag, masks)
            print(masks.summary("masks"))
        if arguments.labels:
            labels = LabelFolder(arguments.labels, replace=arguments.force_labels)
            write_labels(bag, labels)
            print(labels.summary("images with labels"))
        if arguments.video:
            print(f"video: {', '.join(map(str, write_videos(bag, arguments.video, arguments.force)))}")
        return status_of(arguments.bag, list(bag.losses.problems))
