# SPDX-License-Identifier: Apache-2.0
"""``canet import``: convert a foreign network or checkpoint to a model folder."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from canet_ros.commands import add_force_argument, argument
from canet_ros.commands.loading import print_fallback_reasons
from canet_ros.files import require_new
from canet_ros.hints import see_docs
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import (
    MODEL_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    ModelError,
    ModelSpec,
    parse_resolution,
    save_model,
    save_spec,
)
from canet_ros.names import CHANNEL_ORDERS, LAYOUTS, ONNX_OUTPUTS
from canet_ros.opencv import read_image
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import StreetDrive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        help="a network as FILE.onnx, or canet.pth of zh320/realtime-semantic-segmentation-pytorch",
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument(
        "--classes", help="class table: a name or a YAML file (default for canet.pth: cityscapes)"
    )
    add_force_argument(parser)
    onnx = parser.add_argument_group(
        "of FILE.onnx",
        "required only where the graph does not determine them; an error names what is missing",
    )
    onnx.add_argument("--color", choices=CHANNEL_ORDERS, help="order of the input's channels")
    onnx.add_argument(
        "--scale",
        type=argument(_number),
        help="the input is (scale * pixel - mean) / std; fractions like 1/255 are allowed",
    )
    for name in ("mean", "std"):
        help_text = f"{name} of each channel, in the order of the network's channels"
        onnx.add_argument(f"--{name}", type=argument(_number), nargs=3, metavar="X", help=help_text)
    onnx.add_argument(
        "--resolution",
        type=argument(parse_resolution),
        metavar="WxH",
        help="input size, if the network accepts any",
    )
    onnx.add_argument("--input", metavar="NAME", help="the image, if there are several inputs")
    onnx.add_argument("--input-layout", choices=LAYOUTS)
    onnx.add_argument("--output", metavar="NAME", help="the classes, if there are several outputs")
    onnx.add_argument("--output-kind", choices=ONNX_OUTPUTS, help="meaning of the output's values")
    onnx.add_argument("--output-layout", choices=LAYOUTS)
    onnx.add_argument("--picture", type=Path, metavar="FILE", help="test image (default: a synthetic street)")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.force:
        require_new(*(arguments.out / name for name in (SPEC_FILE, MODEL_FILE, WEIGHTS_FILE)))
    if not arguments.file.is_file():
        raise ValueError(f"{arguments.file} is not a file: give FILE.onnx or canet.pth")
    if arguments.file.suffix.lower() == ".onnx":
        return _import_onnx(arguments)
    from canet_ros.model.network_export import write_network
    from canet_ros.training.public_checkpoint import import_public_checkpoint

    classes = load_class_table(arguments.classes or "cityscapes")
    try:
        spec, network = import_public_checkpoint(arguments.file, arguments.out.resolve().name, classes)
    except ModelError as error:
        raise ModelError(
            f"{error}; import any other network as FILE.onnx: {see_docs('how-to/your-own-network.md')}"
        ) from error
    save_model(arguments.out, spec, network, half=False)
    write_network(arguments.out)
    print(f"{arguments.out}: {len(spec.classes)} classes, run it with --model {arguments.out}")
    return 0


def _import_onnx(arguments: argparse.Namespace) -> int:
    """Write the model folder, after the network has run on a test image."""
    import onnx

    from canet_ros.model.onnx_file import read_onnx
    from canet_ros.model.onnx_import import Answers, find_interface

    image = (
        StreetDrive(6, 640, 480).frame(0).image
        if arguments.picture is None
        else read_image(arguments.picture)
    )
    classes = None if arguments.classes is None else load_class_table(arguments.classes)
    network = read_onnx(arguments.file)
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()
    }
    answers = Answers(**{answer.name: given[answer.name] for answer in fields(Answers)})
    try:
        interface, resolution = find_interface(network, len(classes) if classes else None, answers, image)
    except ValueError as error:
        raise ValueError(f"{arguments.file}: {error}") from error
    assert classes is not None  # else find_interface raises
    spec = ModelSpec(arguments.out.resolve().name, classes, resolution=resolution, onnx=interface)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        save_spec(Path(folder), spec)
        onnx.save(network, str(Path(folder) / MODEL_FILE))
        segmenter = Segmenter.load(folder)
        print_fallback_reasons(segmenter.engine)
        mask = segmenter(image).mask
        arguments.out.mkdir(exist_ok=True)
        # model.yaml last: without it, a folder left by an interruption does not count as a model.
        for file in sorted(Path(folder).iterdir(), key=lambda path: path.name == SPEC_FILE):
            file.replace(arguments.out / file.name)
    engine = segmenter.engine
    print("input:  " + ", ".join(f"{key} {value}" for key, value in interface.yaml["input"].items()))
    print("output: " + ", ".join(f"{key} {value}" for key, value in interface.yaml["output"].items()))
    print(f"runs on {engine.name} {engine.precision} ({engine.reason}); classes in the test image:")
    shares = np.bincount(mask.ravel(), minlength=256) / mask.size
    names = [*classes.names, *["id outside of the class table"] * (256 - len(classes))]
    for share, name in sorted(zip(shares, names), reverse=True):
        if share > 0:
            print(f"{share:8.1%}  {name}")
    unknown = shares[len(classes) :].sum()
    if unknown > 0:
        print(
            f"{unknown:.1%} of the image has ids outside of the class table of {len(classes)} classes: check that the "
            "network was trained on these classes",
            file=sys.stderr,
        )
    print(f"{arguments.out}: {len(classes)} classes, run it with --model {arguments.out}")
    return 0


def _number(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    try:
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r}: expected a number, for example 0.485 or 1/255")
    return value
