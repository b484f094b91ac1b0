# SPDX-License-Identifier: Apache-2.0
"""``canet adapt``: fine-tune a model to labelled images of a drive within a time budget."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from canet_ros.commands import add_force_argument, local_path, number
from canet_ros.commands.loading import DEFAULT_MODEL
from canet_ros.commands.train import naming_flags
from canet_ros.files import require_writable, write_json, write_text
from canet_ros.labels.formats import FORMATS
from canet_ros.labels.importing import import_labels
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.model.model_folder import find_model, load_spec, save_spec
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.training.adaptation import (
    BeforeAndAfter,
    adaptation_config,
    average_with_start,
    compare,
    finish_model,
    fit_into_budget,
    gather_drives,
    gather_replay,
)
from canet_ros.training.adaptation_report import render_report
from canet_ros.training.dataset import find_split, ignore_warning, to_stderr
from canet_ros.training.run_log import CURVE_FILE
from canet_ros.training.train import train

_PLAN_FILE = "plan.json"
_DRIVE = "held-out images of the drive"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "drive",
        type=local_path,
        nargs="+",
        help="folder with train/images and train/labels, as of canet pick and canet labels import; without val/, the "
        "last fifth of each recording is held out. With --format: the export of a labelling tool",
    )
    parser.add_argument(
        "--out",
        type=local_path,
        required=True,
        help="model folder to write; the report and the run are written to OUT-adaptation",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"model to start from, by name or folder (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--minutes", type=number("--minutes", float, 0.1), default=60.0, help="time budget (default: 60)"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), help="labelling tool that exported DRIVE")
    parser.add_argument(
        "--images", type=local_path, help="with --format: folder of the images that were labelled"
    )
    parser.add_argument("--classes", help="class table: a name or a YAML file (default: that of the model)")
    parser.add_argument(
        "--replay",
        type=local_path,
        help="labelled images of the model's old domain, a folder as of canet train: mixed in, and measured before "
        "and after (default: synthetic streets, if the classes are those of CamVid)",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="write the model even if it is not better on the held-out images",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    start_s = time.monotonic()
    out: Path = arguments.out
    work = out.with_name(f"{out.name}-adaptation")
    _claim(out, work, arguments.force)
    model = find_model(arguments.model)
    spec = load_spec(model)
    classes = load_class_table(arguments.classes) if arguments.classes else spec.classes
    data = work / "data"
    trained_on, held_out = gather_drives(_labelled_drives(arguments, classes, work), data)
    print(f"{trained_on} images to train on, {held_out} held out")
    replay = work / "replay"
    with naming_flags():
        replayed = gather_replay(arguments.replay, classes, spec, replay)
        config = adaptation_config(model, classes, data, trained_on, out.name, replayed, arguments.seed)
        plan = work / _PLAN_FILE
        if plan.is_file():
            config = replace(config, **json.loads(plan.read_text()))
            print(f"resuming the run of {config.epochs} epochs in {work}")
        else:
            config = fit_into_budget(config, classes, arguments.device, 60 * arguments.minutes)
            write_json(plan, {"epochs": config.epochs, "val_every": config.val_every})
        train(config, classes, work, arguments.device)
    adapted = work / "adapted"
    average_with_start(work / "model", model, adapted)
    for problem in finish_model(adapted, data, replay if arguments.replay else None):
        to_stderr(problem)
    before, after = Segmenter.load(model), Segmenter.load(adapted)
    image_sets = {_DRIVE: data}
    if replayed:
        image_sets["old domain" if arguments.replay else "synthetic streets"] = replay
    compared = {
        name: compare(before, after, find_split(folder, "val", ignore_warning), name)
        for name, folder in image_sets.items()
    }
    better = compared[_DRIVE].gain > 0
    settings = {
        "started from": model.name,
        "images to train on": trained_on,
        "duration, minutes": f"{(time.monotonic() - start_s) / 60:.1f}",
        **asdict(config),
    }
    verdict = _write_results(work, compared, classes, settings)
    if not (better or arguments.anyway):
        to_stderr(f"{verdict}; {out} is not written: label more images, or write it with --anyway")
        return 1
    _publish(adapted, out)
    print(f"model: {out}")
    return 0


def _write_results(
    work: Path, compared: Mapping[str, BeforeAndAfter], classes: ClassTable, settings: Mapping[str, Any]
) -> str:
    """Write the metrics, also into the adapted model, and the report; returns the verdict on the drive."""
    metrics = {name: _figures(one, classes) for name, one in compared.items()}
    save_spec(work / "adapted", replace(load_spec(work / "adapted"), metrics=metrics))
    write_json(work / "metrics.json", metrics)
    drive = compared[_DRIVE]
    verdict = (
        f"{'better' if drive.gain > 0 else 'not better'} on the {drive.images} held-out images of the drive: mIoU "
        f"{drive.before.miou:.3f} before, {drive.after.miou:.3f} after"
    )
    report = work / "report.html"
    page = render_report(settings["name"], verdict, compared, classes, settings, work / CURVE_FILE)
    write_text(report, page)
    for name, one in compared.items():
        print(f"{name}: {one.images} images, mIoU {one.before.miou:.4f} before, {one.after.miou:.4f} after")
    print(f"report: {report}")
    return verdict


def _claim(out: Path, work: Path, force: bool) -> None:
    """Refuse outputs that exist, except a run that can be resumed; ``force`` starts again."""
    if force and (work / _PLAN_FILE).is_file():
        shutil.rmtree(work)
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists: give another --out, or --force to replace it")
    if work.exists() and any(work.iterdir()) and not (work / _PLAN_FILE).is_file():
        raise FileExistsError(
            f"{work} exists, but no run that can be resumed: give another --out, or delete it"
        )
    require_writable(work / _PLAN_FILE, out.with_name(f"{out.name}.yaml"))


def _labelled_drives(arguments: argparse.Namespace, classes: ClassTable, work: Path) -> list[Path]:
    """The folders of the drives; exports of labelling tools are imported into ``work``."""
    if (arguments.format is None) != (arguments.images is None):
        raise ValueError(
            "--format and --images belong together: the export's format and the folder of its images"
        )
    if arguments.format is None:
        return list(arguments.drive)
    folders = []
    for index, export in enumerate(arguments.drive):
        folders.append(work / f"labels-{index}")
        if folders[-1].exists():
            shutil.rmtree(folders[-1])
        import_labels(export, arguments.format, classes, arguments.images, folders[-1])
    return folders


def _figures(one: BeforeAndAfter, classes: ClassTable) -> dict[str, Any]:
    figures: dict[str, Any] = {"images": one.images}
    for when, found in (("before", one.before), ("after", one.after)):
        iou = found.iou_by_class(classes.names)
        figures[when] = {"miou": found.miou, "pixel_accuracy": found.pixel_accuracy, "iou": iou}
    return figures


def _publish(model: Path, out: Path) -> None:
    """Copy the model; an interruption leaves no half of it."""
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial)
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
