# SPDX-License-Identifier: Apache-2.0
"""``canet benchmark``: time engines x precisions x sizes x batches, or with ``--node`` the node over DDS."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from canet_ros.benchmark.engines import Case, gpu_names, measure_engines, table
from canet_ros.commands import add_force_argument, argument
from canet_ros.commands.loading import DEFAULT_MODEL
from canet_ros.files import require_new, require_writable, write_json
from canet_ros.machine import describe_benchmark_machine
from canet_ros.model.model_folder import Resolution, find_model, load_spec, parse_resolution
from canet_ros.names import ENGINES, PRECISIONS
from canet_ros.pipeline.camera_shape import CAMERA, camera_resolution
from canet_ros.training.dataset import find_split

CAMERA_SIZE = (1280, 720)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", nargs="+", default=[DEFAULT_MODEL], help="models by name or folder; the baseline "
        "is the first one in plain PyTorch"
    )  # fmt: skip
    parser.add_argument("--engine", nargs="+", default=["auto"], choices=("auto", *ENGINES))
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=("auto", *PRECISIONS))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--resolution",
        nargs="+",
        type=argument(_resolution),
        metavar="WxH",
        help="network input, or 'camera': aspect ratio of a 1280x720 camera (default: the first model's)",
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1], help="images per call")
    parser.add_argument(
        "--rounds", type=int, default=20, help="measurements of each, interleaved (default: 20)"
    )
    parser.add_argument("--data", type=Path, help="labelled images, for agreement with fp32 and mIoU")
    parser.add_argument(
        "--split", default="val", help="folder in --data with images/ and labels/ (default: val)"
    )
    parser.add_argument("--node", action="store_true", help="measure the node over DDS, with the first model")
    parser.add_argument(
        "--frames", type=int, default=30, help="with --node: frames per measurement (default: 30)"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="measure everything on this device; write report.md and report.json",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=15.0,
        help="time limit per size; with --report: approximate total time (default: 15)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    add_force_argument(parser)


def _resolution(text: str) -> Resolution | None:
    """None is the camera's aspect ratio."""
    return None if text == CAMERA else parse_resolution(text)


def run(arguments: argparse.Namespace) -> int:
    if min(arguments.rounds, arguments.frames, *arguments.batch) < 1:
        raise ValueError("--rounds, --frames and --batch must be 1 or more")
    if not arguments.minutes > 0:
        raise ValueError(f"--minutes must be more than 0, not {arguments.minutes:g}")
    if arguments.report:
        from canet_ros.benchmark.report import measure_everything

        if not arguments.force:
            require_new(*(path for name in ("report.*", "steps/*") for path in arguments.report.glob(name)))
        measure_everything(arguments.model[0], arguments.device, arguments.report, arguments.minutes)
        print(arguments.report / "report.md")
        return 0
    require_writable(arguments.json, replace=arguments.force)
    models = [find_model(name) for name in arguments.model]
    own = load_spec(models[0]).resolution
    resolutions = [given or camera_resolution(own, CAMERA_SIZE) for given in arguments.resolution or [own]]
    figures: dict[str, Any] = {"machine": {**describe_benchmark_machine(), "gpus": gpu_names()}}
    if arguments.node:
        from canet_ros.benchmark.node import measure_node

        figures["node"] = measure_node(
            models[0],
            resolutions[0],
            CAMERA_SIZE,
            arguments.engine[0],
            arguments.precision[0],
            arguments.frames,
        )
        print(json.dumps(figures["node"], indent=2))
    else:
        images = find_split(arguments.data, arguments.split) if arguments.data else []
        cases = [
            Case(model, engine, precision, arguments.device, resolution, batch)
            for resolution, batch, model, engine, precision in itertools.product(
                resolutions, arguments.batch, models, arguments.engine, arguments.precision
            )
        ]

        def save(rows: list[dict[str, Any]]) -> None:
            figures["engines"] = rows
            if arguments.json:  # intermediate figures, in case the run is interrupted
                write_json(arguments.json, figures)

        figures["engines"] = measure_engines(cases, arguments.rounds, images, arguments.minutes * 60, save)
        print(table(figures["engines"]))
    if arguments.json:
        write_json(arguments.json, figures)
    return 0
