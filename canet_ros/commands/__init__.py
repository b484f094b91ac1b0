# SPDX-License-Identifier: Apache-2.0
"""Subcommands of ``canet``, one file each: ``add_arguments(parser)`` and ``run(arguments) -> exit status``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def argument(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """``parse`` as the ``type`` of an argument: argparse drops the words of a ValueError."""

    def parsed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """``--force``, without which every command keeps outputs that exist."""
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")
