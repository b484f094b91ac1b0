# SPDX-License-Identifier: Apache-2.0
"""``canet record``: a drive to mcap, where there is no ``ros2 bag``."""

from __future__ import annotations

import argparse
import importlib.util
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

from canet_ros.demo.processes import signals_ignored
from canet_ros.hints import install_ros
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.ending import end_by_exception, ending_signals
from canet_ros.launching.recording import recorded_topics
from canet_ros.names import TRANSPORTS

NODE_TIMEOUT_S = 20.0
SHOW_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, nargs="?", help="folder to be made (default: canet_ and the time)")
    parser.add_argument("--node", default="/canet", help="segmentation node that is asked for its cameras")
    parser.add_argument(
        "--image-topics", nargs="+", metavar="TOPIC", help="cameras, so that no node is asked"
    )
    parser.add_argument("--image-transport", choices=TRANSPORTS, help="form in which the images are recorded")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="further topics")
    parser.add_argument(
        "--only-topics", action="store_true", help="record --topics alone, no camera and no results"
    )
    parser.add_argument(
        "--split-size", type=float, default=0.0, metavar="MB", help="begin a new file from here"
    )
    parser.add_argument(
        "--split-duration", type=float, default=0.0, metavar="S", help="begin a new file from here"
    )
    parser.add_argument(
        "--duration", type=float, default=0.0, metavar="S", help="end after this time; 0: by Ctrl-C"
    )
    parser.add_argument("--use-sim-time", action="store_true", help="stamp by /clock")


def run(arguments: argparse.Namespace) -> int:
    for name in ("split_size", "split_duration", "duration"):
        if not 0 <= getattr(arguments, name) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, not {getattr(arguments, name)}")
    if arguments.out is not None and arguments.out.exists():  # the node is waited for, for long
        raise ValueError(f"{arguments.out} exists: give another name")
    if importlib.util.find_spec("rclpy") is None:
        raise RuntimeError(f"ROS 2 is missing: {install_ros()}")
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from canet_ros.bags.recording import BagRecorder
    from canet_ros.demo.bag_recorder import RecorderNode
    from canet_ros.ros.initialization import init_ros

    out = arguments.out or Path(time.strftime("canet_%Y_%m_%d-%H_%M_%S"))
    init_ros([])
    before = {number: signal.signal(number, end_by_exception) for number in ending_signals()[1:]}
    try:
        topics = _topics(arguments, rclpy)
        bag = BagRecorder(out, round(arguments.split_size * 1e6), round(arguments.split_duration * 1e9))
        node = None
        try:
            node = RecorderNode(topics, bag, arguments.use_sim_time)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            print(f"recording {len(topics)} topics to {out}; Ctrl-C ends it", flush=True)
            _record(node, executor, bag, arguments.duration)
        except KeyboardInterrupt:
            if node is None:
                raise
        finally:
            with signals_ignored():  # an impatient second Ctrl-C costs nothing of the bag
                if node is None:
                    bag.close()
                else:
                    node.finish()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rclpy.try_shutdown()
    if node.failure is not None:
        raise RuntimeError(f"the recording ended early: {node.failure}")
    return _summary(node, out)


def _topics(arguments: argparse.Namespace, rclpy: Any) -> list[str]:
    if arguments.only_topics:
        if not arguments.topics:
            raise ValueError("--only-topics needs --topics")
        return list(arguments.topics)
    results_name = "segmentation"
    cameras, transport = arguments.image_topics, arguments.image_transport
    if not cameras:
        from canet_ros.demo.bag_recorder import node_cameras

        asking = rclpy.create_node("canet_record_asks")
        try:
            cameras, used, results_name = node_cameras(
                asking, arguments.node, NODE_TIMEOUT_S, lambda: rclpy.spin_once(asking, timeout_sec=0.1)
            )
        finally:
            asking.destroy_node()
        transport = transport or used
    absolute = [topic if topic.startswith("/") else f"/{topic}" for topic in cameras]
    return [*recorded_topics(camera_topics(absolute, results_name), transport or "raw"), *arguments.topics]


def _record(node: Any, executor: Any, bag: Any, duration_s: float) -> None:
    start_s = shown_s = time.monotonic()
    terminal = sys.stderr.isatty()
    while node.failure is None and not 0 < duration_s <= time.monotonic() - start_s:
        executor.spin_once(timeout_sec=0.1)
        if terminal and time.monotonic() - shown_s >= SHOW_S:
            shown_s = time.monotonic()
            print(f"\r{_line(node, bag, shown_s - start_s)}", end="", file=sys.stderr, flush=True)


def _line(node: Any, bag: Any, seconds: float) -> str:
    missing = len(node.missing())
    return (
        f"{seconds:.0f} s, {sum(node.recorded.values())} messages, {sum(node.dropped.values())} dropped, "
        f"{sum(node.lost.values())} lost on the way, file {bag.split_count}: {bag.bytes_written / 1e6:.1f} MB"
        + (f", {missing} topics not seen yet" if missing else "")
        + "   "
    )


def _summary(node: Any, out: Path) -> int:
    print(f"{sum(node.recorded.values())} messages of {len(node.recorded)} topics: {out}")
    for topic, count in node.dropped.items():
        print(f"{topic}: {count} messages dropped, because the disk was slower than they came")
    for topic, count in node.lost.items():
        print(f"{topic}: {count} messages lost by the middleware")
    for topic in node.missing():
        print(f"{topic}: nobody published it")
    if not node.recorded:
        print("canet record: no message came", file=sys.stderr)
        return 1
    return 0
