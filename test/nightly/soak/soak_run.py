# SPDX-License-Identifier: Apache-2.0
"""``make soak``: a long run of the node with what changes and fails on a vehicle; exit status 1 if anything drifts."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from canet_ros.commands import add_force_argument
from canet_ros.files import require_writable, write_json
from canet_ros.hints import install_ros
from canet_ros.launching.ending import Ended, end_by_exception
from canet_ros.machine import describe_benchmark_machine
from canet_ros.model.model_folder import find_model, parse_resolution, shipped_model
from canet_ros.names import ENGINES, PRECISIONS
from canet_ros.pipeline.camera_shape import CAMERA

if TYPE_CHECKING:
    from soak import SoakReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--cameras", type=int, default=3, help="how many (default: 3)")
    parser.add_argument(
        "--rate",
        type=float,
        default=3.0,
        metavar="HZ",
        help="of each camera, six times this under overload (default: 3)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the synthetic street and of what changes when"
    )
    parser.add_argument("--model", default="", help="name under models/, or a model folder")
    parser.add_argument(
        "--resolution", default="", metavar="WxH", help="of the network's input (default: the model's own)"
    )
    parser.add_argument("--engine", default="auto", choices=("auto", *ENGINES))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    add_force_argument(parser)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    for name, least, most in (("minutes", 0.1, 10_080), ("cameras", 1, 16), ("rate", 0.5, 100)):
        if not least <= getattr(arguments, name) <= most:
            raise ValueError(f"--{name} must be {least:g} to {most:g}, not {getattr(arguments, name):g}")
    if importlib.util.find_spec("rclpy") is None:
        raise RuntimeError(f"ROS 2 is missing: {install_ros()}")
    if arguments.resolution and arguments.resolution != CAMERA:
        parse_resolution(arguments.resolution)
    model = find_model(arguments.model or shipped_model("canet", "mobilenet_v2"))
    require_writable(arguments.json, replace=arguments.force)
    from soak import Soak, SoakSettings

    parameters = {
        "model": str(model.resolve()),
        "engine": arguments.engine,
        "device": arguments.device,
        "precision": arguments.precision,
    }
    if arguments.resolution:
        parameters["resolution"] = arguments.resolution
    settings = SoakSettings(arguments.minutes, parameters, arguments.cameras, arguments.rate, arguments.seed)
    # Lines go above the bar.
    soak = Soak(settings, say=lambda line: tqdm.write(line, file=sys.stdout))
    before = signal.signal(signal.SIGTERM, end_by_exception)
    interrupted = 0
    try:
        soak.run()
    except KeyboardInterrupt as error:
        interrupted = error.status if isinstance(error, Ended) else 130
    finally:
        signal.signal(signal.SIGTERM, before)
    if arguments.json:
        write_json(arguments.json, _figures(soak.report, settings, bool(interrupted)))
    print(_summary(soak.report, bool(interrupted)))
    return interrupted or (0 if soak.report.passed else 1)


def _figures(report: SoakReport, settings: Any, interrupted: bool) -> dict[str, Any]:
    return {
        "passed": report.passed and not interrupted,
        "interrupted": interrupted,
        "settings": {**asdict(settings), "parameters": dict(settings.parameters)},
        "machine": describe_benchmark_machine(),
        **asdict(report),
    }


def _summary(report: SoakReport, interrupted: bool) -> str:
    lines = [
        f"ran for {report.ran_s / 60:.1f} minutes{', then interrupted' if interrupted else ''}: "
        f"{report.totals.get('sent', 0)} images sent, {report.totals.get('masks', 0)} masks, "
        f"{report.totals.get('wrong_masks', 0)} wrong, least agreement "
        f"{100 * report.totals.get('least_agreement', 0):.2f} %; {len(report.faults)} faults"
    ]
    lines += [f"{name}: {verdict}" for name, verdict in report.verdicts.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"soak: {error}")
