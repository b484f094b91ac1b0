# SPDX-License-Identifier: Apache-2.0
"""Runs a node until SIGINT or SIGTERM, and ends quietly and soon."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from canet_ros.launching.ending import ending_signals
from canet_ros.ros.initialization import init_ros, node_problem
from canet_ros.ros.rclpy_compat import RCLError, run_exit_functions

_CALLBACK_TIMEOUT_S = 1.0
_LOOK_FOR_SIGNALS_S = 0.1
# An error that comes at once again must not take the machine.
_PAUSE_S = 0.05

SomeNode = TypeVar("SomeNode", bound=Node)


def run_node(
    create: Callable[[], SomeNode],
    stop: Callable[[SomeNode], bool],
    on_callback_error: Callable[[SomeNode, Exception], None],
    args: Sequence[str] | None,
) -> int:
    """Spin the node that ``create`` makes until a signal, and end the process, with exit code 0; return 1 if ROS did
    not start or made no node.

    Args:
        stop: ends the node's threads; False if one is still busy. It then is not waited for: the process ends under
            it.
        on_callback_error: takes what a timer, a subscription or a service threw; none of them ends the node.
    """
    try:
        init_ros(args)
    except RuntimeError as error:  # a parameter file that is not there, arguments that are none
        print(error, file=sys.stderr)
        return 1
    ended = threading.Event()
    signals: list[int] = []
    for number in ending_signals():
        # Not ended.set(): this thread, which waits for that, may hold its lock.
        signal.signal(number, lambda number, frame: signals.append(number))
    try:
        node = create()
    except RCLError as error:
        print(node_problem(error), file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        while not ended.is_set():
            try:
                executor.spin()
            except ExternalShutdownException:
                break
            except Exception as error:
                if ended.is_set():  # the executor was shut down under a callback
                    break
                on_callback_error(node, error)
                ended.wait(_PAUSE_S)
            else:
                break
        ended.set()

    # Python runs signal handlers in the main thread, so this one only waits: a callback can take long.
    spinning = threading.Thread(target=spin, name="executor", daemon=True)
    spinning.start()
    # In turns: Linux may give a signal to a thread of PyTorch's or DDS', and then nothing wakes this one.
    while not signals and not ended.wait(_LOOK_FOR_SIGNALS_S):
        pass
    ended.set()
    executor.shutdown(timeout_sec=0)
    spinning.join(_CALLBACK_TIMEOUT_S)
    spun = not spinning.is_alive()
    idle = spun and stop(node)
    if spun:  # take leave of the other nodes, which would wait for this one's lease to run out
        node.destroy_node()
        rclpy.try_shutdown()
    if idle:
        # What others have registered for the end; the interpreter's own end takes a second with PyTorch in it.
        run_exit_functions()
    # Ending the interpreter under a thread that is inside a C++ library can abort the process.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, full, a broken pipe
            stream.flush()
    os._exit(0)
