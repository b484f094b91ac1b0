# SPDX-License-Identifier: Apache-2.0
"""Runs a node until SIGINT or SIGTERM, and ends quietly and soon."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

_CALLBACK_TIMEOUT_S = 1.0


def run_node(create: Callable[[], Node], stop: Callable[[Node], bool], args: Sequence[str] | None) -> int:
    """Spin the node that ``create`` makes; the exit code is 1 if ROS did not start or a callback threw, else 0.

    Args:
        stop: ends the node's threads; False if one is still busy. It then is not waited for: the process ends under
            it.
    """
    # rclpy's own handlers would invalidate the context under the hands of the node's threads.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a parameter file that is not there, arguments that are none
        print(error, file=sys.stderr)
        return 1
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    node = create()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thrown: list[BaseException] = []

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        except BaseException as error:
            thrown.append(error)
        ended.set()

    # Python runs signal handlers in the main thread, so this one only waits: a callback can take long.
    spinning = threading.Thread(target=spin, name="executor", daemon=True)
    spinning.start()
    ended.wait()
    executor.shutdown(timeout_sec=0)
    spinning.join(_CALLBACK_TIMEOUT_S)
    spun = not spinning.is_alive()
    idle = spun and stop(node)
    if thrown:
        traceback.print_exception(type(thrown[0]), thrown[0], thrown[0].__traceback__)
    if spun:  # take leave of the other nodes, which would wait for this one's lease to run out
        node.destroy_node()
        rclpy.try_shutdown()
    if not idle:
        # Ending the interpreter under a thread that is inside a C++ library can abort the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if thrown else 0)
    return 1 if thrown else 0
