# SPDX-License-Identifier: Apache-2.0
"""Initialises rclpy, also without a writable log directory, and explains failures."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import rclpy
from rclpy.context import Context
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from canet_ros.launching.network import environment_problems
from canet_ros.launching.parameter_files import parameter_files, parameters_in_file, read_parameter_file

_LAST_STAMP_S = 2**31  # builtin_interfaces/Time has 32 bits


def init_ros(args: Sequence[str] | None = None, context: Context | None = None) -> None:
    """``rclpy.init`` without its signal handlers, which would end the context while a node's threads use it.

    If no log file can be written, ROS starts without one and logs a warning.

    Args:
        args: command line; None: ``sys.argv``.

    Raises:
        RuntimeError: ROS does not start; the message gives the reason.
    """
    words = list(sys.argv if args is None else args)
    if time.time() >= _LAST_STAMP_S:  # DDS refuses such stamps, and no node starts
        raise RuntimeError(
            f"the system clock is at {time.strftime('%Y-%m-%d')}, but ROS 2 stamps end in January 2038: correct it"
        )
    without_log = log_file_problem(os.environ)
    added = ["--ros-args", "--disable-external-lib-logs"] if without_log else []
    try:
        rclpy.init(args=[*words, *added], context=context, signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, UnicodeEncodeError) as error:  # the latter by arguments in another encoding
        text = f"unknown ROS arguments: {error}" if "UnknownROSArgs" in type(error).__name__ else str(error)
        raise RuntimeError("; ".join([text, *_file_problems(words)])) from error
    if without_log:
        get_logger("canet_ros").warning(f"no log file is written: {without_log}")


def node_problem(error: Exception) -> str:
    """Why the middleware could not create a node, and the remedy, in one line."""
    text = str(error).partition(", at ")[0].partition("\n")[0]
    middleware = rclpy.get_rmw_implementation_identifier()
    return "; ".join([f"{middleware} could not start ({text})", *environment_problems()])


def log_file_problem(environment: Mapping[str, str]) -> str:
    """Why no log file can be written, and the remedy; empty: it can."""
    remedy = "set ROS_LOG_DIR to a writable folder"
    folder = environment.get("ROS_LOG_DIR") or f"{environment.get('ROS_HOME') or '~/.ros'}/log"
    if folder.startswith("~"):
        if not environment.get("HOME"):
            return f"HOME is not set; {remedy}"
        folder = environment["HOME"] + folder[1:]
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{folder}: {error.strerror}; {remedy}"
    return ""


def _file_problems(words: Sequence[str]) -> list[str]:
    """Errors in the parameter files among the arguments, with line numbers, which rcl rarely gives."""
    problems = []
    for file in parameter_files(words):
        try:
            parameters_in_file(read_parameter_file(file), "/")
        except ValueError as error:
            problems.append(f"{file}: {error}")
    return problems
