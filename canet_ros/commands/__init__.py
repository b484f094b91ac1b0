# SPDX-License-Identifier: Apache-2.0
"""Subcommands of ``canet``, one module each with ``add_arguments(parser)`` and ``run(arguments) -> exit status``."""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


def argument(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Wrap ``parse`` as the ``type`` of an argument, because argparse drops the message of a ValueError."""

    @functools.wraps(parse)
    def parsed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


class OptionError(RuntimeError):
    """A value that an option does not take: argparse lets it pass, so that the command ends with status 1."""


def number(
    option: str, kind: type[int] | type[float], lowest: float, highest: float = math.inf
) -> Callable[[str], Any]:
    """The ``type`` of an option that is a finite number in a closed range."""

    def parse(text: str) -> int | float:
        value = kind(text)
        if not lowest <= value <= highest or value == math.inf:
            limits = f"{lowest:g} or more" if highest == math.inf else f"{lowest:g} to {highest:g}"
            raise OptionError(f"{option} must be {limits}, not {text}")
        return value

    return parse


@argument
def local_path(text: str) -> Path:
    """The ``type`` of an argument that is a path; refuses addresses."""
    if "://" in text:
        raise ValueError(
            f"{text} is an address, not a path: copy the file to this machine; images of a live camera are segmented "
            "by the node, ros2 launch canet_ros canet.launch.py"
        )
    return Path(text)


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``, without which commands refuse to replace existing outputs."""
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")


def add_topics_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topics",
        nargs="+",
        action="extend",
        default=[],
        metavar="TOPIC",
        help="image topics (default: all)",
    )
