# SPDX-License-Identifier: Apache-2.0
"""The beginning of every process with rclpy: also where no log file can be written, and with words where it fails."""

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

_LAST_STAMP_S = 2**31  # builtin_interfaces/Time holds 32 bits


def init_ros(args: Sequence[str] | None = None, context: Context | None = None) -> None:
    """``rclpy.init`` without its signal handlers, which would end the context under the hands of a node's threads.

    Where no log file can be written, ROS begins without one and says so.

    Args:
        args: as ``sys.argv``, which None stands for.

    Raises:
        RuntimeError: ROS does not start; the message says why.
    """
    words = list(sys.argv if args is None else args)
    if time.time() >= _LAST_STAMP_S:  # DDS refuses to publish, and with that a node to begin
        raise RuntimeError(
            f"the system's clock says {time.strftime('%Y-%m-%d')}, but ROS 2 stamps end in January 2038: set it right"
        )
    without_log = log_file_problem(os.environ)
    added = ["--ros-args", "--disable-external-lib-logs"] if without_log else []
    try:
        rclpy.init(args=[*words, *added], context=context, signal_handler_options=SignalHandlerOptions.NO)
    except UnicodeEncodeError:
        raise RuntimeError(
            f"the arguments hold characters that are none in this environment's encoding, "
            f"{sys.getfilesystemencoding()}: set LANG=C.UTF-8, and neither LC_ALL=C nor PYTHONUTF8=0"
        ) from None
    except RuntimeError as error:
        text = f"unknown ROS arguments: {error}" if "UnknownROSArgs" in type(error).__name__ else str(error)
        raise RuntimeError("; ".join([text, *_file_problems(words)])) from error
    if without_log:
        get_logger("canet_ros").warning(f"no log file is written: {without_log}")


def node_problem(error: Exception) -> str:
    """Why the middleware made no node, and what to do, in one line."""
    text = str(error).partition(", at ")[0].partition("\n")[0]
    middleware = rclpy.get_rmw_implementation_identifier()
    return "; ".join([f"{middleware} could not be started ({text})", *environment_problems()])


def log_file_problem(environment: Mapping[str, str]) -> str:
    """Why no log file can be written, and what to do; empty where it can."""
    remedy = "set ROS_LOG_DIR to a folder that can be written"
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
    """What is wrong with the parameter files among the arguments; rcl's own words name hardly the line."""
    problems = []
    for file in parameter_files(words):
        try:
            parameters_in_file(read_parameter_file(file), "/")
        except ValueError as error:
            problems.append(f"{file}: {error}")
    return problems
