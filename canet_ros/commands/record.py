# SPDX-License-Identifier: Apache-2.0
"""``canet record``: records a drive as mcap without ``ros2 bag``."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import time
from pathlib import Path

from canet_ros.commands import local_path, number
from canet_ros.demo.processes import signals_ignored
from canet_ros.hints import install_ros
from canet_ros.launching.ending import end_by_exception, ending_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", type=local_path, nargs="?", help="folder to create (default: canet_ and the time)"
    )
    parser.add_argument(
        "--node", default="/canet", help="segmentation node whose cameras and results are recorded"
    )
    parser.add_argument(
        "--topics", nargs="+", default=[], metavar="TOPIC", help="record these topics instead of the node's"
    )
    parser.add_argument(
        "--duration",
        type=number("--duration", float, 0),
        default=0.0,
        metavar="S",
        help="stop after this duration; 0: until Ctrl-C",
    )
    parser.add_argument("--use-sim-time", action="store_true", help="stamp by /clock")


def run(arguments: argparse.Namespace) -> int:
    out = arguments.out or Path(time.strftime("canet_%Y_%m_%d-%H_%M_%S"))
    if out.exists():
        raise ValueError(f"{out} exists: give another name")
    if importlib.util.find_spec("rclpy") is None:
        raise RuntimeError(f"ROS 2 is missing: {install_ros()}")
    import rclpy

    from canet_ros.bags.bag import BagError
    from canet_ros.demo.bag_recorder import RecorderNode
    from canet_ros.ros.initialization import init_ros, node_problem
    from canet_ros.ros.rclpy_compat import RCLError

    init_ros([])
    before = {number: signal.signal(number, end_by_exception) for number in ending_signals()[1:]}
    try:
        node = RecorderNode(arguments.topics, arguments.node, out, arguments.use_sim_time)
        what = f"{len(arguments.topics)} topics" if arguments.topics else f"the topics of {arguments.node}"
        print(f"recording {what} to {out}; Ctrl-C stops it", flush=True)
        start_s = time.monotonic()
        try:
            while not 0 < arguments.duration <= time.monotonic() - start_s:
                rclpy.spin_once(node, timeout_sec=0.1)
        except KeyboardInterrupt:
            pass
        except BagError as error:
            raise RuntimeError(f"the recording ended early: {error}") from error
        with signals_ignored():  # a second Ctrl-C must not damage the bag
            node.finish()
    except RCLError as error:
        raise RuntimeError(node_problem(error)) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rclpy.try_shutdown()
    print(f"{sum(node.recorded.values())} messages of {len(node.recorded)} topics: {out}")
    for topic, count in node.lost.items():
        print(f"{topic}: {count} messages lost by the middleware")
    for topic in node.missing():
        print(f"{topic}: not published")
    if not node.recorded:
        print("canet record: no message received", file=sys.stderr)
        return 1
    return 0
