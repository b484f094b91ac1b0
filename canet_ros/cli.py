# SPDX-License-Identifier: Apache-2.0
"""The command ``canet``: exit status 0, 1 (it failed: one line says why) or 2 (wrong usage)."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import canet_ros

COMMANDS = {
    "demo": "run the main job on this machine: camera, node and recorder, with DDS between them",
    "segment": "segment pictures, folders and videos, without ROS",
    "train": "train a model on a folder of labelled pictures",
    "evaluate": "measure a model on a folder of labelled pictures",
    "ablate": "train the same model with every fusion and compare",
    "import": "bring in public weights: a CANet checkpoint, or ImageNet files to train from",
    "export": "build ahead what an engine needs, calibrate int8, or write a model as ONNX",
    "benchmark": "measure engines, precisions and sizes, or the node, on this machine",
    "models": "list the models that can be given by name",
    "doctor": "say what this machine can run, and what is missing",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status is the return value."""
    parser = argparse.ArgumentParser(prog="canet", description=canet_ros.__doc__)
    parser.add_argument("--version", action="version", version=canet_ros.__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    wanted = next((word for word in arguments_given if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        if name == wanted:
            _module(name).add_arguments(subparser)
    arguments = parser.parse_args(arguments_given)
    try:
        status: int = _module(arguments.command).run(arguments)
        return status
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"canet {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"canet_ros.commands.{name}")


if __name__ == "__main__":
    sys.exit(main())
