# SPDX-License-Identifier: Apache-2.0
"""``canet labels``: import labels that were corrected in a labelling tool, and check labels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from canet_ros.commands import add_force_argument, local_path
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.files import require_image_format, require_writable, write_image
from canet_ros.labels.formats import FORMATS
from canet_ros.labels.importing import import_labels
from canet_ros.model.class_table import load_class_table
from canet_ros.pipeline.image_files import in_short
from canet_ros.training.dataset import count_ids, find_split, to_stderr, warn_about_missing_classes
from canet_ros.training.evaluate import evaluate, worst_images_sheet

_SWAPPED_SHARE = 0.5  # of the pixels of both classes; confused classes share far fewer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="import|check", required=True)
    importing = actions.add_parser("import", help="take a labelling tool's export as labels for canet train")
    importing.add_argument(
        "export", type=local_path, help="folder, zip archive or file that the tool exported"
    )
    importing.add_argument("--format", choices=tuple(FORMATS), required=True)
    importing.add_argument(
        "--images", type=local_path, required=True, help="folder of the images that were labelled"
    )
    importing.add_argument(
        "--out", type=local_path, required=True, help="folder for train/images and train/labels"
    )
    importing.add_argument(
        "--classes", default="camvid", help="class table: a name or a YAML file (default: camvid)"
    )
    add_force_argument(importing)
    checking = actions.add_parser("check", help="find wrong labels by comparing them with a model")
    checking.add_argument("data", type=local_path, help="folder with train/ or val/, as of canet train")
    checking.add_argument("--split", default="train", help="folder with images/ and labels/ (default: train)")
    checking.add_argument(
        "--out",
        type=local_path,
        metavar="PNG",
        help="write a sheet of the images that differ most from the model",
    )
    checking.add_argument("--count", type=int, default=12, help="images of the sheet (default: 12)")
    add_model_arguments(checking)
    add_force_argument(checking)


def run(arguments: argparse.Namespace) -> int:
    return _import(arguments) if arguments.action == "import" else _check(arguments)


def _import(arguments: argparse.Namespace) -> int:
    classes = load_class_table(arguments.classes)
    result = import_labels(
        arguments.export, arguments.format, classes, arguments.images, arguments.out, arguments.force
    )
    if result.without_image:
        to_stderr(
            f"left out {len(result.without_image)} labels without an image: {in_short(result.without_image)}"
        )
    if result.without_labels:
        to_stderr(
            f"left out {len(result.without_labels)} images without labels: {in_short(result.without_labels)}"
        )
    print(f"labels of {len(result.imported)} images: {arguments.out}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    require_image_format(arguments.out)
    require_writable(arguments.out, replace=arguments.force)
    images = find_split(arguments.data, arguments.split)
    segmenter = load_segmenter(arguments)
    classes = segmenter.spec.classes
    counts = count_ids(images, classes, to_stderr, check_images=True)
    warn_about_missing_classes(counts, classes, arguments.data / arguments.split, to_stderr)
    evaluation = evaluate(segmenter, images)
    problems = list(_swapped_classes(evaluation.confusion, classes.names))
    for problem in problems:
        print(problem, file=sys.stderr)
    if arguments.out:
        write_image(arguments.out, worst_images_sheet(segmenter, images, evaluation, arguments.count))
    known = counts[: len(classes)].sum() / max(int(counts.sum()), 1)
    print(f"{len(images)} images, {known:.1%} of the pixels labelled, {len(problems)} problems")
    return 1 if problems else 0


def _swapped_classes(confusion: NDArray[np.int64], names: Sequence[str]) -> Iterator[str]:
    """Name pairs of classes whose labels seem to be swapped.

    Args:
        confusion: (classes, classes), by (label, prediction of a model that knows the classes).
    """
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for first, second in zip(*np.nonzero(np.triu(np.minimum(share, share.T) > _SWAPPED_SHARE, k=1))):
        yield (
            f"{names[first]} and {names[second]} seem to be swapped: the model sees {names[second]} in "
            f"{share[first, second]:.0%} of the pixels labelled {names[first]}, and {names[first]} in "
            f"{share[second, first]:.0%} of those labelled {names[second]}"
        )
