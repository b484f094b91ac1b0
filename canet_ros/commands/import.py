# SPDX-License-Identifier: Apache-2.0
"""``canet import``: a public checkpoint of CANet becomes a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from canet_ros.inference.class_table import load_class_table
from canet_ros.inference.model_folder import save_model
from canet_ros.training.public_checkpoint import import_public_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="canet.pth of zh320/realtime-semantic-segmentation-pytorch")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--classes", default="cityscapes", help="class table: a name or a YAML file")


def run(arguments: argparse.Namespace) -> int:
    spec, network = import_public_checkpoint(
        arguments.file, arguments.out.name, load_class_table(arguments.classes)
    )
    save_model(arguments.out, spec, network, half=False)
    print(f"{arguments.out}: {len(spec.classes)} classes, run it with --model {arguments.out}")
    return 0
