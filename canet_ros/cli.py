# SPDX-License-Identifier: Apache-2.0
"""The command ``canet``: exit status 0, 1 (it failed: one line says why) or 2 (wrong usage)."""

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
    "demo": "run the main job on this machine: camera, node and recorder, with DDS between them",
    "segment": "segment pictures, folders and videos, without ROS",
    "segment-bag": "segment the cameras of a rosbag2, without ROS; a rosbag2 comes out",
    "record": "record the camera's and the node's topics as mcap, for machines without ros2 bag",
    "report": "look at a recorded drive: one page with classes, confidence, pictures and topics",
    "pick": "choose the frames of a recorded drive that are most worth labelling",
    "train": "train a model on a folder of labelled pictures",
    "evaluate": "measure a model on a folder of labelled pictures",
    "ablate": "train the same model with every fusion and compare",
    "import": "bring in public weights: a CANet checkpoint, or ImageNet files to train from",
    "export": "build ahead what an engine needs, calibrate int8, or write a model as ONNX",
    "benchmark": "measure engines, precisions and sizes, or the node, on this machine",
    "policy": "write the SROS 2 policy of a node: the least that it needs",
    "models": "list the models that can be given by name",
    "doctor": "say what this machine can run, and what is missing",
}


DEBUG_VARIABLE = "CANET_ROS_DEBUG"
_COMPLETING = "_ARGCOMPLETE"  # set by the shell's function of argcomplete


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line, as every other error is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} ({self.prog} --help tells more)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status is the return value. With CANET_ROS_DEBUG set, errors are tracebacks."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    if _COMPLETING in os.environ:
        arguments_given = os.environ.get("COMP_LINE", "").split()[1:]
    command = next((word for word in arguments_given if not word.startswith("-")), "")
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files in a locale that cannot say them
    # Libraries that report on stderr what comes as an exception too.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        arguments = _parse(arguments_given, command)
        _require_current_folder()
        status: int = _module(arguments.command).run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        print(f"canet {command}: stopped before the end", file=sys.stderr)
        return error.status if isinstance(error, Ended) else 130
    except BrokenPipeError:  # of `canet doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        # A SystemExit of argparse is an answer; packages end, and Rust panics, with exceptions of this kind too.
        if os.environ.get(DEBUG_VARIABLE) or not (isinstance(error, Exception) or import_problem(error)):
            raise
        print(f"canet {command}: {_in_words(error)}", file=sys.stderr)
        return 1


def _require_current_folder() -> None:
    """Libraries that look for their files beside it end the process without a word that helps."""
    try:
        os.getcwd()
    except OSError:
        raise RuntimeError("the current folder is gone: go to another") from None


def _in_words(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:  # Python's own words, not ours
        return missing_package(error.name.partition(".")[0])
    first_line = str(error).strip().partition("\n")[0]
    if "No usable temporary directory" in first_line:  # Python's own words
        return f"{first_line}: set TMPDIR to a folder that can be written"
    broken = import_problem(error)
    if broken:
        return broken
    if isinstance(
        error, ValueError
    ):  # ours; a model that does not fit names every tensor in a line of its own
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, (ImportError, OSError, RuntimeError)) and first_line:
        return first_line
    return f"{type(error).__name__}: {first_line} (unforeseen: with {DEBUG_VARIABLE}=1 it says where)"


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
    if _COMPLETING in os.environ:  # the shell asks what could come next; this ends the process
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser.parse_args(arguments_given)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"canet_ros.commands.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
