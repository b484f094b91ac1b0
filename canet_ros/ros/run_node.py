# SPDX-License-Identifier: Apache-2.0
"""Runs a node until SIGINT or SIGTERM, then exits promptly."""

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
_SIGNAL_CHECK_PERIOD_S = 0.1
_ERROR_PAUSE_S = 0.05  # limits the CPU load of an error that recurs at once

# EX_SOFTWARE of sysexits.h; launch restarts the node after it, but not after 0 (a signal) and 1 (it could not start).
STATUS_BROKEN = 70

SomeNode = TypeVar("SomeNode", bound=Node)


class BrokenProcessError(Exception):
    """Raised in a callback when only a new process helps: this one ends with ``STATUS_BROKEN``."""


def run_node(
    create: Callable[[], SomeNode],
    stop: Callable[[SomeNode], bool],
    on_callback_error: Callable[[SomeNode, Exception], None],
    args: Sequence[str] | None,
) -> int:
    """Spin a node until a signal, then end the process with status 0; return 1 if the node could not start.

    After a ``BrokenProcessError``, which the caller has logged, the status is ``STATUS_BROKEN``.

    Args:
        create: creates the node; raises ValueError if its parameters are invalid.
        stop: ends the node's threads; returns False if one is still busy, and the process ends without waiting for it.
        on_callback_error: called with exceptions of timers, subscriptions and services, which do not end the node.
    """
    try:
        init_ros(args)
    except RuntimeError as error:  # missing parameter file, invalid arguments
        print(error, file=sys.stderr)
        return 1
    ended = threading.Event()
    status = 0
    signals: list[int] = []
    for number in ending_signals():
        # Not ended.set(): the interrupted thread may hold the lock of the event.
        signal.signal(number, lambda number, frame: signals.append(number))
    try:
        node = create()
    except (RCLError, ValueError) as error:
        print(node_problem(error) if isinstance(error, RCLError) else error, file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        nonlocal status
        while not ended.is_set():
            try:
                executor.spin()
            except ExternalShutdownException:
                break
            except BrokenProcessError:
                status = STATUS_BROKEN
                break
            except Exception as error:
                if ended.is_set():  # the executor was shut down under a callback
                    break
                on_callback_error(node, error)
                ended.wait(_ERROR_PAUSE_S)
            else:
                break
        ended.set()

    # Python runs signal handlers in the main thread, which therefore must not run long callbacks.
    spinning = threading.Thread(target=spin, name="executor", daemon=True)
    spinning.start()
    # Poll: Linux may deliver a signal to a thread of PyTorch or DDS, which does not wake this one.
    while not signals and not ended.wait(_SIGNAL_CHECK_PERIOD_S):
        pass
    ended.set()
    executor.shutdown(timeout_sec=0)
    spinning.join(_CALLBACK_TIMEOUT_S)
    spun = not spinning.is_alive()
    idle = spun and stop(node)
    if spun:  # leave the graph; otherwise other nodes wait for this one's lease to expire
        node.destroy_node()
        rclpy.try_shutdown()
    if idle:
        # The full shutdown of an interpreter with PyTorch takes a second.
        run_exit_functions()
    # Shutting down the interpreter while a thread is inside a C++ library can abort the process.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, full, a broken pipe
            stream.flush()
    os._exit(status)
