# SPDX-License-Identifier: Apache-2.0
"""The command ``canet``: exit status 0, 1 (failed; one line gives the reason) or 2 (wrong usage)."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import canet_ros
from canet_ros.hints import import_problem, missing_package
from canet_ros.launching.ending import Ended

COMMANDS = {
    "demo": "run a camera, the node and a recorder on this machine, with DDS between them",
    "segment": "segment images, folders and videos, without ROS",
    "segment-bag": "segment the cameras of a rosbag2 and write a rosbag2, without ROS",
    "extract": "write the videos, masks or labels of a segmented rosbag2",
    "record": "record the topics of the camera and the node as mcap, on machines without ros2 bag",
    "report": "summarise a recorded drive on one page: classes, confidence, images and topics",
    "pick": "choose the frames of a recorded drive that are most worth labelling",
    "labels": "import labels that were corrected in a labelling tool, and check labels",
    "train": "train a model on a folder of labelled images",
    "adapt": "fine-tune a model to labelled images of a drive within a time budget",
    "evaluate": "evaluate a model on a folder of labelled images",
    "ablate": "train the same model with every fusion and compare the results",
    "import": "import an ONNX network or the public CANet checkpoint as a model",
    "export": "prepare an engine in advance, calibrate int8, or write a model as ONNX",
    "benchmark": "measure engines, precisions and sizes, or the node, on this machine",
    "models": "list the models that are available by name",
    "doctor": "report what this machine can run, and what is missing",
}

DEBUG_VARIABLE = "CANET_ROS_DEBUG"
_COMPLETION_VARIABLE = "_ARGCOMPLETE"  # set by argcomplete's shell function


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status. With CANET_ROS_DEBUG set, errors are tracebacks."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    if _COMPLETION_VARIABLE in os.environ:
        arguments_given = os.environ.get("COMP_LINE", "").split()[1:]
    command = next((word for word in arguments_given if not word.startswith("-")), "")
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names that the locale cannot encode
    # These libraries also write their exceptions to stderr.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        arguments = _parse(arguments_given, command)
        _require_current_folder()
        status: int = _module(arguments.command).run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        print(f"canet {command}: interrupted", file=sys.stderr)
        return error.status if isinstance(error, Ended) else 130
    except BrokenPipeError:  # of `canet doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        # SystemExit comes from argparse; packages raise it on import too, and Rust panics are BaseExceptions.
        if os.environ.get(DEBUG_VARIABLE) or not (isinstance(error, Exception) or import_problem(error)):
            raise
        print(f"canet {command}: {_describe(error)}", file=sys.stderr)
        return 1


def _require_current_folder() -> None:
    # Without it, libraries that resolve relative paths end the process with an unhelpful message.
    try:
        os.getcwd()
    except OSError:
        raise RuntimeError("the current folder was deleted: change to another one") from None


def _describe(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:  # raised by Python, not by this package
        return missing_package(error.name.partition(".")[0])
    first_line = str(error).strip().partition("\n")[0]
    if broken := import_problem(error):
        return broken
    if isinstance(error, ValueError):  # of this package; a model mismatch lists one tensor a line
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, (ImportError, OSError, RuntimeError)) and first_line:
        return first_line
    return f"{type(error).__name__}: {first_line} (unexpected: set {DEBUG_VARIABLE}=1 for a traceback)"


def _parse(arguments_given: Sequence[str], command: str) -> argparse.Namespace:
    parser = _Parser(prog="canet", description=canet_ros.__doc__)
    parser.add_argument("--version", action="version", version=f"canet {canet_ros.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        if name == command:
            _module(name).add_arguments(subparser)
    if _COMPLETION_VARIABLE in os.environ:  # answers the shell and ends the process
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser.parse_args(arguments_given)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"canet_ros.commands.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
