# SPDX-License-Identifier: Apache-2.0
"""``canet demo``: run the segmentation on this machine, as three processes connected by DDS.

A street camera publishes images, the segmentation node publishes masks and overlays, this process records the results.
Without ``--input`` it also segments the real street images that are shipped.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from canet_ros.commands import add_force_argument, local_path, number
from canet_ros.commands.pipeline_arguments import add_parameter_arguments
from canet_ros.demo.live_view import open_live_view
from canet_ros.demo.processes import ChildProcess, ProcessError, signals_ignored, stop
from canet_ros.demo.results import (
    OVERLAY_FILES,
    SHEET_FILE,
    STREET_SHEET_FILE,
    SUMMARY_FILE,
    Recording,
    segment_street,
    summarize,
    write_images,
)
from canet_ros.files import require_new, write_json
from canet_ros.hints import install_ros
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.ending import end_by_exception
from canet_ros.launching.recording import canet_record_command, recorded_topics
from canet_ros.launching.transport import transport_environment, unused_domain_id
from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import find_model, load_spec, parse_resolution, shipped_model
from canet_ros.pipeline.segmenter import Segmenter

CAMERA = "/street"
NODE = "/canet"
RATE_HZ = 10.0
ENGINE_OPTIONS = ("resolution", "engine", "device", "precision")
LOG_FOLDER, BAG_FOLDER = "logs", "drive"
NODE_PROCESS, CAMERA_PROCESS, BAG_PROCESS = "segmentation node", "street camera", "bag recorder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo_output"), help="folder for the results (default: demo_output)"
    )
    parser.add_argument(
        "--input",
        type=local_path,
        help="image, folder of images, video or rosbag2 in place of the synthetic street",
    )
    parser.add_argument(
        "--seconds",
        type=number("--seconds", float, 1, 3600),
        default=20.0,
        metavar="S",
        help="how long the camera publishes (default: 20)",
    )
    parser.add_argument(
        "--size", default="640x480", metavar="WxH", help="size of the synthetic images (default: 640x480)"
    )
    parser.add_argument(
        "--view",
        type=number("--view", int, 0, 65535),
        nargs="?",
        const=0,
        metavar="PORT",
        help="show the overlay live in a browser on this machine, at 127.0.0.1 (default: a free port)",
    )
    parser.add_argument("--bag", action="store_true", help=f"also record a rosbag2, in OUT/{BAG_FOLDER}")
    parser.add_argument("--seed", type=int, default=6, help="seed of the synthetic street (default: 6)")
    add_parameter_arguments(parser, ("model", "architecture", "backbone", *ENGINE_OPTIONS))
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("rclpy") is None:
        raise RuntimeError(f"ROS 2 is missing: {install_ros()}")
    out, model = arguments.out, arguments.model or shipped_model(arguments.architecture, arguments.backbone)
    folder = find_model(model).resolve()
    if not arguments.force:
        require_new(*_results_of_earlier_run(out))
    _clear_output(out)
    os.environ.update(transport_environment(), ROS_DOMAIN_ID=str(unused_domain_id()))
    engine = {name: value for name in ENGINE_OPTIONS if (value := getattr(arguments, name))}
    recording = _record(_commands(arguments, folder, engine), arguments, load_spec(folder).classes)
    summary = summarize(recording, str(arguments.input or f"synthetic street, seed {arguments.seed}"))
    summary["images"] = write_images(recording, summary, out)
    if not arguments.input:
        summary["real_street"] = segment_street(Segmenter.load(folder, **engine), out / STREET_SHEET_FILE)
    write_json(out / SUMMARY_FILE, summary)
    print(_table(summary))
    print(f"\nimages and {SUMMARY_FILE}: {out.resolve()}")
    if arguments.bag:
        print(f"rosbag2: {(out / BAG_FOLDER).resolve()}")
    return 0


def _record(
    commands: Mapping[str, Sequence[str]], arguments: argparse.Namespace, classes: ClassTable
) -> Recording:
    """Run the other processes until the camera has ended, and record what they publish.

    Raises:
        ProcessError: a process failed, or the node ended.
        RuntimeError: no results arrived.
        OSError: the port of --view is in use.
    """
    import rclpy

    from canet_ros.demo.recorder import Recorder
    from canet_ros.ros.initialization import init_ros

    view = None if arguments.view is None else open_live_view(classes, arguments.view)
    sigterm_handler = signal.signal(signal.SIGTERM, end_by_exception)
    processes: list[ChildProcess] = []
    try:
        for name, command in commands.items():
            log = arguments.out / LOG_FOLDER / f"{name.replace(' ', '_')}.log"
            processes.append(ChildProcess(name, command, log=log))
        init_ros([])
        recorder = Recorder(CAMERA, NODE, classes, functools.partial(_require_running, processes), view)
        recorder.record(0 if arguments.input else _frame_count(arguments))
        return recorder.recording
    finally:
        with signals_ignored():
            stop(processes)
            rclpy.try_shutdown()
            if view is not None:
                view.close()
        signal.signal(signal.SIGTERM, sigterm_handler)


def _require_running(processes: Iterable[ChildProcess]) -> None:
    for process in processes:
        status = process.status()
        # The camera ends after its last frame; the node must not end.
        if status is not None and (status != 0 or process.name == NODE_PROCESS):
            raise ProcessError(process.exit_message())


def _frame_count(arguments: argparse.Namespace) -> int:
    frames: int = round(arguments.seconds * RATE_HZ)
    return frames


def _clear_output(out: Path) -> None:
    """Create the folder; remove the results of an earlier run."""
    (out / LOG_FOLDER).mkdir(parents=True, exist_ok=True)
    for path in _results_of_earlier_run(out):
        path.unlink()
    bag = out / BAG_FOLDER
    if bag.is_dir() and not any(bag.iterdir()):
        bag.rmdir()


def _results_of_earlier_run(out: Path) -> list[Path]:
    bag = f"{BAG_FOLDER}/{BAG_FOLDER}_*.mcap", f"{BAG_FOLDER}/metadata.yaml"
    return [
        path
        for pattern in (SUMMARY_FILE, SHEET_FILE, STREET_SHEET_FILE, OVERLAY_FILES, *bag)
        for path in out.glob(pattern)
    ]


def _commands(arguments: argparse.Namespace, model: Path, engine: Mapping[str, str]) -> dict[str, list[str]]:
    camera: dict[str, Any] = {"rate": RATE_HZ, "frames": _frame_count(arguments)}
    camera["wait_for_subscribers"] = 2 + arguments.bag
    if arguments.input:
        camera["input"] = arguments.input.resolve()
    else:
        width, height = parse_resolution(arguments.size)
        camera |= {"seed": arguments.seed, "width": width, "height": height}
    image = f"{CAMERA}/image_raw"
    node = {"image_topics": f"['{image}']", "model": model, "diagnostics_period": 0.5, **engine}
    commands = {
        NODE_PROCESS: _ros_command("canet_ros.ros.node", node),
        CAMERA_PROCESS: [*_ros_command("canet_ros.demo.street_camera", camera), "-r", f"__ns:={CAMERA}"],
    }
    if arguments.bag:
        topics = [*recorded_topics(camera_topics([image], "segmentation"), "raw"), f"{CAMERA}/truth"]
        bag = str(arguments.out / BAG_FOLDER)
        commands[BAG_PROCESS] = canet_record_command(topics, bag, use_sim_time=False)
    return commands


def _ros_command(module: str, parameters: Mapping[str, Any]) -> list[str]:
    command = [sys.executable, "-m", module, "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    return command


def _table(summary: Mapping[str, Any]) -> str:
    fallback = {"fallback": summary["passed_over"]} if summary["passed_over"] else {}
    miou = "no ground truth" if summary["miou"] is None else f"{summary['miou']:.3f} on the synthetic street"
    street = summary.get("real_street")
    rows = {
        "model": f"{summary['model']} at {summary['resolution']}",
        "runs on": f"{summary['engine']} {summary['precision']}, {summary['device']} ({summary['host']['processor']})",
        **fallback,
        "camera": f"{summary['camera_size']}, {summary['input']}",
        "frames": f"{summary['frames_published']} published, {summary['frames_segmented']} segmented, "
        f"{summary['dropped']} dropped",
        "rate": f"{summary['fps'] or '-'} frames per second",
        "latency": f"{summary['latency_ms']['p50']} ms p50, {summary['latency_ms']['p95']} ms p95, "
        "from image stamp to mask arrival",
        "mIoU": miou,
    }
    if street:
        rows["real"] = (
            f"{street['images']} images of a real street, mIoU {street['miou_against_automatic_labels']:.3f} against "
            f"automatic labels, which are not ground truth: {street['sheet']}"
        )
    return "\n".join(f"{name:>8}  {text}" for name, text in rows.items())
