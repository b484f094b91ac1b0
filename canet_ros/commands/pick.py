# SPDX-License-Identifier: Apache-2.0
"""``canet pick``: selects the frames of a drive most worth labelling."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from canet_ros.commands import add_topics_argument, local_path, number
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.commands.report import status_of
from canet_ros.files import require_new
from canet_ros.labels.formats import FORMATS
from canet_ros.training.dataset import find_labelled_images

STEP_NS = 250_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=local_path, help="rosbag2, segmented or not: folder or file")
    parser.add_argument(
        "--count", type=number("--count", int, 1), default=50, help="frames of each camera (default: 50)"
    )
    parser.add_argument(
        "--out", type=local_path, required=True, help="folder for train/images and train/labels"
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="masks",
        help="also write the labels as this labelling tool imports them (default: masks, images of class ids only)",
    )
    add_label_force_arguments(parser)
    add_topics_argument(parser)
    add_model_arguments(parser, keep_aspect_ratio=True)


def add_label_force_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace outputs that exist, except labels")
    parser.add_argument(
        "--force-labels", action="store_true", help="replace labels too, also those corrected by hand"
    )


def run(arguments: argparse.Namespace) -> int:
    from canet_ros.bags.cameras import choose_cameras
    from canet_ros.bags.frames import FileNames
    from canet_ros.bags.label_folder import LabelFolder
    from canet_ros.bags.reading import open_bag
    from canet_ros.bags.samples import candidate, samples, select

    tool = FORMATS[arguments.format]
    if not arguments.force and arguments.format not in ("masks", "labelme"):  # to these two, files are added
        require_new(arguments.out / "train" / tool.file)
    labels = LabelFolder(arguments.out, replace=arguments.force_labels)
    names = FileNames()
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as work, open_bag(arguments.bag, Path(work)) as bag:
        cameras = choose_cameras(bag, arguments.topics, lambda text: print(text, file=sys.stderr))
        segmenter = load_segmenter(arguments)
        classes = len(segmenter.spec.classes)
        for camera in cameras:
            found = samples(bag, camera, segmenter, left_out.append, STEP_NS)
            looked_at = tqdm(found, camera.topic, unit="image")
            candidates = [candidate(sample, classes) for sample in looked_at]
            wanted = {candidates[index].log_ns for index in select(candidates, arguments.count)}
            # A second pass, because the images do not fit into memory.
            for sample in samples(bag, camera, segmenter, _nothing, STEP_NS):
                if sample.log_ns not in wanted:
                    continue
                name = names.name(camera.topic, sample.stamp_ns, sample.log_ns)
                image = sample.frame.image
                mask = sample.frame.segmentation.resized((image.shape[1], image.shape[0])).mask
                labels.write(name, {"images": image, "labels": mask})
        left_out += bag.losses.problems
    if labels.added + labels.kept == 0:
        raise ValueError(f"no image of {arguments.bag} could be decoded")
    print(labels.summary("images and pre-labels"))
    status = status_of(arguments.bag, left_out)
    if arguments.format != "masks":
        file = arguments.out / "train" / tool.file
        tool.write(find_labelled_images(file.parent), segmenter.spec.classes, file)
        print(f"{file}: {tool.instruction}")
    return status


def _nothing(*_: object) -> None:
    pass
