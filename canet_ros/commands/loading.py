# SPDX-License-Identifier: Apache-2.0
"""Options that select a model, engine, device, precision and resolution, shared by all commands that segment."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from canet_ros.commands.pipeline_arguments import add_parameter_arguments
from canet_ros.engines import Engine
from canet_ros.formats import CAMERA
from canet_ros.model.model_folder import find_model, load_spec
from canet_ros.pipeline.camera_segmenter import CameraShapedSegmenter
from canet_ros.pipeline.segmenter import Segmenter

DEFAULT_MODEL = "canet-mobilenet_v2-camvid"


def add_model_arguments(
    parser: argparse.ArgumentParser, model: str | None = DEFAULT_MODEL, keep_aspect_ratio: bool = False
) -> None:
    """Add the options.

    Args:
        model: the default; ``--model`` is required if it is None.
        keep_aspect_ratio: makes ``camera`` the default of ``--resolution``, for networks that take any size.
    """
    default = f" (default: {model})" if model else ""
    parser.add_argument(
        "--model", default=model, required=model is None, help=f"name or model folder{default}"
    )
    add_parameter_arguments(parser, ("engine", "device", "precision"))
    parser.add_argument(
        "--resolution",
        default=None if keep_aspect_ratio else "",
        metavar="WxH",
        help="size of the network's input; camera: the images' aspect ratio; '': that of the model "
        f"(default: {'camera, if the network takes any size' if keep_aspect_ratio else 'that of the model'})",
    )


def load_segmenter(
    arguments: argparse.Namespace, model: str | Path | None = None, streams: int = 0
) -> Segmenter:
    """Load the segmenter that the options select, and print fallback reasons. Raises as ``Segmenter.load``.

    Args:
        model: overrides ``--model``.
    """
    folder = find_model(arguments.model if model is None else model)
    resolution = arguments.resolution
    if resolution is None:
        network = load_spec(folder).onnx
        resolution = CAMERA if network is None or network.free_size else ""
    segmenter = Segmenter.load(
        folder,
        arguments.device,
        arguments.engine,
        arguments.precision,
        resolution,
        streams=streams,
    )
    print_fallback_reasons(segmenter.engine)
    if isinstance(segmenter, CameraShapedSegmenter):  # loads an engine for each new shape of image
        segmenter.on_new_engine = lambda proven: print_fallback_reasons(proven.engine)
    return segmenter


def print_fallback_reasons(engine: Engine) -> None:
    """Print one line to stderr if faster engines or precisions were not available."""
    if engine.fallback_reasons:
        tqdm.write(
            f"runs on {engine.name} {engine.precision}: {'; '.join(engine.fallback_reasons)}", file=sys.stderr
        )
