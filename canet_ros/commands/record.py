# SPDX-License-Identifier: Apache-2.0
"""``canet record``: records a drive as mcap without ``ros2 bag``."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import time
from pathlib import Path

from canet_ros.commands import local_path, number
from canet_ros.demo.processes import signals_ignored
from canet_ros.hints import install_ros
from canet_ros.launching.ending import end_by_exception, ending_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=local_path, nargs="?", help="folder to create (default: canet_ and time)")
    parser.add_argument("--node", default="/canet", help="node whose inputs and results are recorded")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="record only these topics")
    seconds = number("--duration", float, 0)
    parser.add_argument("--duration", type=seconds, default=0.0, metavar="S", help="0: until Ctrl-C")
    parser.add_argument("--use-sim-time", action="store_true", help="stamp by /clock")


def run(arguments: argparse.Namespace) -> int:
    out = arguments.out or Path(time.strftime("canet_%Y_%m_%d-%H_%M_%S"))
    if out.exists():
        raise ValueError(f"{out} exists: give another name")
    if importlib.util.find_spec("rclpy") is None:
        raise RuntimeError(f"ROS 2 is missing: {install_ros()}")
    import rclpy

    from canet_ros.demo.bag_recorder import RecorderNode
    from canet_ros.ros.initialization import init_ros, node_problem
    from canet_ros.ros.rclpy_compat import RCLError

    init_ros([])
    before = {number: signal.signal(number, end_by_exception) for number in ending_signals()[1:]}
    try:
        node = RecorderNode(arguments.topics, arguments.node, out, arguments.use_sim_time)
        print(f"recording to {out}; Ctrl-C stops it", flush=True)
        start_s = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            while not 0 < arguments.duration <= time.monotonic() - start_s:
                rclpy.spin_once(node, timeout_sec=0.1)
        with signals_ignored():  # a second Ctrl-C must not damage the bag
            node.finish()
    except RCLError as error:
        raise RuntimeError(node_problem(error)) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rclpy.try_shutdown()
    counts = node.written.counts
    print(f"{sum(counts.values())} messages of {len(counts)} topics: {out}")
    for topic, count in node.lost.items():
        print(f"{topic}: {count} messages lost by the middleware")
    for topic in node.missing():
        print(f"{topic}: not published")
    if not counts:
        raise RuntimeError("no message received")
    return 0
