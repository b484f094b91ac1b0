# SPDX-License-Identifier: Apache-2.0
"""``canet import``: public weights become a model folder, or a file to start a training from."""

from __future__ import annotations

import argparse
from pathlib import Path

from canet_ros.inference.class_table import load_class_table
from canet_ros.inference.model_folder import SPEC_FILE, save_model, write_weights
from canet_ros.names import BACKBONES
from canet_ros.network.backbones import build_backbone
from canet_ros.training.initialization import read_backbone
from canet_ros.training.public_checkpoint import import_public_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        help="canet.pth of zh320/realtime-semantic-segmentation-pytorch; with --backbone, torchvision's ImageNet file",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="model folder, or with --backbone the .safetensors file, to write",
    )
    parser.add_argument("--classes", default="cityscapes", help="class table: a name or a YAML file")
    parser.add_argument(
        "--backbone",
        choices=tuple(BACKBONES),
        help="the file is this backbone's, trained on ImageNet; for train --init",
    )

    parser.add_argument("--force", action="store_true", help="replace what is there already")


def run(arguments: argparse.Namespace) -> int:
    there = arguments.out if arguments.backbone else arguments.out / SPEC_FILE
    if there.exists() and not arguments.force:
        raise ValueError(f"{there} is there already: give --force to replace it, or another --out")
    if arguments.backbone:
        if arguments.out.suffix != ".safetensors":
            raise ValueError(f"--out {arguments.out}: with --backbone, name a file that ends in .safetensors")
        weights = read_backbone(arguments.file, build_backbone(arguments.backbone).state_dict())
        write_weights(arguments.out, weights)
        print(f"{arguments.out}: train from it with --backbone {arguments.backbone} --init {arguments.out}")
        return 0
    spec, network = import_public_checkpoint(
        arguments.file, arguments.out.name, load_class_table(arguments.classes)
    )
    save_model(arguments.out, spec, network, half=False)
    print(f"{arguments.out}: {len(spec.classes)} classes, run it with --model {arguments.out}")
    return 0
