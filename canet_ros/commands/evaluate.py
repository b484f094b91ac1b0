# SPDX-License-Identifier: Apache-2.0
"""``canet evaluate``: mIoU, pixel accuracy and IoU per class of a model on labelled images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from canet_ros.commands import add_force_argument
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.files import require_image_format, require_writable, write_image, write_json
from canet_ros.model.model_folder import SPEC_FILE, find_model, load_spec, save_spec
from canet_ros.pipeline.ood_monitor import in_distribution_range
from canet_ros.training.calibration import calibrate_temperature
from canet_ros.training.dataset import count_ids, find_split, of_drives, to_stderr, warn_about_missing_classes
from canet_ros.training.evaluate import evaluate, worst_images_sheet
from canet_ros.training.metrics import scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, model=None)
    parser.add_argument("--data", type=Path, required=True, help="folder that contains the split")
    parser.add_argument("--split", default="val", help="folder with images/ and labels/ (default: val)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="PREFIX",
        help="images whose names start with a prefix (a drive)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="write to model.yaml the temperature that calibrates the confidences on these images, and the range of "
        "confidences that counts as in-distribution",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the metrics, and the confusion matrix"
    )
    parser.add_argument("--reliability", type=Path, metavar="PNG", help="plot accuracy over confidence")
    parser.add_argument("--confusion", type=Path, metavar="PNG", help="plot the confusion matrix")
    parser.add_argument(
        "--worst", type=Path, metavar="PNG", help="write a sheet of the images of lowest mIoU"
    )
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.reliability or arguments.confusion:  # before the work starts: Matplotlib may be missing
        from canet_ros.training.plots import plot_confusion, plot_reliability
    images = find_split(arguments.data, arguments.split)
    if arguments.only:
        images = of_drives(images, arguments.only)
    plots = (arguments.reliability, arguments.confusion, arguments.worst)
    require_image_format(*plots)
    require_writable(arguments.json, *plots, replace=arguments.force)
    folder = find_model(arguments.model)
    classes = load_spec(folder).classes
    counts = count_ids(images, classes, to_stderr)
    warn_about_missing_classes(counts, classes, arguments.data / arguments.split, to_stderr)
    if arguments.calibrate:
        require_writable(folder / SPEC_FILE)
        calibrate_temperature(folder, images)
    segmenter = load_segmenter(arguments, folder)
    evaluation = evaluate(segmenter, images)
    result = scores(evaluation.confusion)
    metrics: dict[str, Any] = {
        "miou": result.miou,
        "pixel_accuracy": result.pixel_accuracy,
        "calibration_error": evaluation.reliability.calibration_error,
        "temperature": segmenter.spec.temperature,
        "iou": result.iou_by_class(classes.names),
        "confusion": evaluation.confusion.tolist(),  # pixels by labelled and by predicted class
        "images": len(images),
        "model": segmenter.spec.name,
        "engine": segmenter.engine.name,
        "device": segmenter.engine.device,
        "precision": segmenter.engine.precision,
        "resolution": f"{segmenter.resolution[0]}x{segmenter.resolution[1]}",
    }
    for name, iou in metrics["iou"].items():
        print(f"{name:>20}  {'does not occur' if iou is None else f'{iou:.4f}'}")
    print(f"{'mIoU':>20}  {result.miou:.4f}{result.coverage_note}")
    print(f"{'pixel accuracy':>20}  {result.pixel_accuracy:.4f}")
    print(f"{'calibration error':>20}  {evaluation.reliability.calibration_error:.4f}")
    if arguments.calibrate:
        error = round(evaluation.reliability.calibration_error, 4)
        spec = replace(
            segmenter.spec,
            familiar=in_distribution_range(evaluation.ood_statistics),
            metrics={**segmenter.spec.metrics, f"{arguments.split}_calibration_error": error},
        )
        save_spec(folder, spec)
        print(f"{'temperature':>20}  {spec.temperature:g}, written to {folder / SPEC_FILE}")
    if arguments.json:
        write_json(arguments.json, metrics)
    if arguments.reliability:
        title = f"{segmenter.spec.name} on {arguments.split}"
        plot_reliability(evaluation.reliability, title, arguments.reliability)
    if arguments.confusion:
        plot_confusion(evaluation.confusion, classes.names, arguments.confusion)
    if arguments.worst:
        write_image(arguments.worst, worst_images_sheet(segmenter, images, evaluation))
    return 0
