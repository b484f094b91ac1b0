# SPDX-License-Identifier: Apache-2.0
"""``canet train``: train a model into a run folder, or resume the run that is there."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path

from canet_ros.commands import argument
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.model.model_folder import SPEC_FILE, available_models, load_spec, parse_resolution
from canet_ros.names import ARCHITECTURES, BACKBONES, FUSIONS, HEADS
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import parse_extra_data
from canet_ros.training.run_log import HISTORY_FILE
from canet_ros.training.train import CHECKPOINT_FILE, train

_HELP = {
    "data": "folder with the splits train/ and val/, each with images/ and labels/; without val/, the last fifth "
    "of each recording is held out",
    "name": "name of the model",
    "data_licence": "permitted use of the data, and so of the weights; stored in model.yaml",
    "architecture": ", ".join(ARCHITECTURES),
    "backbone": ", ".join(BACKBONES),
    "fusion": ", ".join(FUSIONS),
    "head": f"{', '.join(HEADS)}; subpixel has logits every 4 pixels, bilinear every 8, as in the paper",
    "extra_data": "folders of further labelled images; SHARE: number of them drawn per epoch, relative to the images "
    "of --data (1: as many); may be repeated",
    "extra_share": "share of --extra-data folders without SHARE",
    "splits": "folders of --data to train on (default: train)",
    "without": "exclude training images whose names start with a prefix (a held-out drive)",
    "init": "a model by name or folder, or an ImageNet file of the backbone (torchvision's names)",
    "freeze_stem": "keep the backbone's weights up to stride 4 as in --init",
    "teacher": "a model folder whose logits are learned in addition to the labels (distillation)",
    "teacher_share": "weight of the distillation loss",
    "resolution": "WIDTHxHEIGHT of the model's input",
    "crop": "WIDTHxHEIGHT of a training sample",
    "max_aspect": "maximum width per height of a sample, at the area of --crop; 0: --crop only",
    "epochs": "length of the schedule; 0: 30, more for a few images, fewer for many thousands",
    "learning_rate": "peak learning rate of all layers except the backbone",
    "backbone_learning_rate": "peak learning rate of the backbone",
    "class_sharpness": "weight of rare classes: the closer to 1, the higher",
    "dice_share": "weight of the Dice loss relative to cross-entropy",
    "hard_share": "share of the pixels, those of the highest loss, in cross-entropy",
    "loss_stride": "compute the loss at a size smaller by this factor: faster",
    "ema_decay": "decay of the averaged weights, per step",
    "precision": "fp32, bf16 or fp16 (autocast)",
    "val_every": "epochs between two evaluations on val",
    "keep_last": "store the last epoch instead of the best one on val",
    "workers": "processes that read and augment images",
    "sync_batch_norm": "with several GPUs: compute batch norm over the whole batch",
}

_FROM_INIT = ("architecture", "backbone", "fusion", "head")  # the defaults are those of the model of --init


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="run folder: checkpoint, history and model")


def add_training_options(parser: argparse.ArgumentParser, excluded: Collection[str] = ()) -> None:
    """Add an option for every field of ``TrainingConfig`` that is not excluded, and ``--classes`` and ``--device``."""
    for option in fields(TrainingConfig):
        if option.name in excluded:
            continue
        flag = "--" + option.name.replace("_", "-")
        help_text = _HELP.get(option.name, option.name.replace("_", " "))
        if option.name in ("data", "name"):
            parser.add_argument(flag, required=True, help=help_text)
        elif option.name in _FROM_INIT:
            parser.add_argument(
                flag, metavar="X", help=f"{help_text} (default: that of --init's model, or {option.default})"
            )
        elif option.name in ("resolution", "crop"):
            parser.add_argument(
                flag, type=argument(parse_resolution), default=option.default, metavar="WxH", help=help_text
            )
        elif option.name == "extra_data":
            parser.add_argument(
                flag,
                nargs="+",
                action="extend",
                type=argument(parse_extra_data),
                metavar="FOLDER[:SHARE]",
                help=help_text,
            )
        elif isinstance(option.default, bool):
            parser.add_argument(flag, action="store_true", help=help_text)
        elif isinstance(option.default, tuple):
            parser.add_argument(flag, nargs="+", default=option.default, metavar="X", help=help_text)
        else:
            parser.add_argument(
                flag,
                type=type(option.default),
                default=option.default,
                metavar="X",
                help=f"{help_text} (default: {'none' if option.default == '' else option.default})",
            )
    parser.add_argument(
        "--classes",
        help="class table: camvid, or a YAML file (default: that of --init's model, or camvid)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")


def training_config(arguments: argparse.Namespace, **given: str) -> tuple[TrainingConfig, ClassTable]:
    """Configuration and classes of the options; defaults are taken from the model of ``--init``.

    Args:
        given: values of fields without an option.

    Raises:
        ValueError: a value is out of its range, or the model of ``--init`` is an imported ONNX network.
    """
    values = {option.name: getattr(arguments, option.name, None) for option in fields(TrainingConfig)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    values |= given
    init: str = arguments.init
    if not Path(init).exists():
        init = str(available_models().get(init, init))
    values["init"] = init
    classes = None if arguments.classes is None else load_class_table(arguments.classes)
    if init and (Path(init) / SPEC_FILE).is_file():
        model = load_spec(Path(init))
        if model.onnx is not None:
            raise ValueError(
                f"--init {init}: an imported ONNX network cannot be trained; use it as --teacher"
            )
        values |= {name: getattr(model, name) for name in _FROM_INIT if values[name] is None}
        classes = classes or model.classes
    with naming_flags():
        config = TrainingConfig(**{name: value for name, value in values.items() if value is not None})
    return config, classes or load_class_table("camvid")


@contextlib.contextmanager
def naming_flags() -> Iterator[None]:
    """Replace the name of a field at the start of an error by its option."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        if name not in ("device", "minutes", "replay", *(option.name for option in fields(TrainingConfig))):
            raise
        raise ValueError(f"--{name.replace('_', '-')} {rest}") from error


def run(arguments: argparse.Namespace) -> int:
    config, classes = training_config(arguments)
    model = arguments.out / "model"
    run_files = (arguments.out / CHECKPOINT_FILE, arguments.out / HISTORY_FILE)
    if model.exists() and not any(file.exists() for file in run_files):
        raise FileExistsError(f"{model} exists, but no run that can be resumed: give another --out")
    with naming_flags():
        best = train(config, classes, arguments.out, arguments.device)
    print(f"best on val: mIoU {best.miou:.4f}{best.coverage_note}, pixel accuracy {best.pixel_accuracy:.4f}")
    print(f"model: {model}")
    return 0
