# SPDX-License-Identifier: Apache-2.0
"""``canet train``: a run folder in, a model folder out; run again, it goes on where it stopped."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from canet_ros.inference.class_table import load_class_table
from canet_ros.inference.model_folder import parse_resolution
from canet_ros.training.train import TrainingConfig, train

_HELP = {
    "data": "folder with the splits train/ and val/, each with images/ and labels/",
    "name": "name of the model",
    "data_licence": "what the data, and so the weights, may be used for; kept with the model",
    "architecture": "canet or canet_lite",
    "backbone": "mobilenet_v2, resnet18, resnet50 or resnet101",
    "fusion": "fca, concat, se, cbam, fca_spatial or fca_channel",
    "extra_data": "folders of further labelled pictures",
    "extra_share": "how many of the further pictures an epoch sees, per training picture",
    "without": "leave out training pictures whose names begin so (a drive)",
    "init": "a model folder, or an ImageNet file of the backbone (torchvision's names)",
    "resolution": "WIDTHxHEIGHT the model will run at",
    "crop": "WIDTHxHEIGHT of a training sample",
    "epochs": "length of the schedule",
    "learning_rate": "peak rate of everything but the backbone",
    "backbone_learning_rate": "peak rate of the backbone",
    "dice_share": "weight of the Dice loss beside cross-entropy",
    "ema_decay": "decay of the averaged weights, per step",
    "precision": "fp32 or bf16 (autocast)",
    "val_every": "epochs between two measurements on val",
    "workers": "processes that read and augment pictures",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for option in fields(TrainingConfig):
        flag = "--" + option.name.replace("_", "-")
        help_text = _HELP.get(option.name, option.name.replace("_", " "))
        if option.name in ("data", "name"):
            parser.add_argument(flag, required=True, help=help_text)
        elif option.name in ("resolution", "crop"):
            parser.add_argument(
                flag, type=parse_resolution, default=option.default, metavar="WxH", help=help_text
            )
        elif isinstance(option.default, tuple):
            parser.add_argument(flag, nargs="+", default=(), metavar="X", help=help_text)
        else:
            parser.add_argument(
                flag,
                type=type(option.default),
                default=option.default,
                metavar="X",
                help=f"{help_text} (default: {option.default or 'none'})",
            )
    parser.add_argument("--classes", default="camvid", help="class table: camvid, or a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, history and model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")


def run(arguments: argparse.Namespace) -> int:
    values = {option.name: getattr(arguments, option.name) for option in fields(TrainingConfig)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    classes = load_class_table(arguments.classes)
    best = train(TrainingConfig(**values), classes, arguments.out, arguments.device)
    print(f"best on val: mIoU {best.miou:.4f}, pixel accuracy {best.pixel_accuracy:.4f}")
    print(f"model: {arguments.out / 'model'}")
    return 0
