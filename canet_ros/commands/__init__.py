# SPDX-License-Identifier: Apache-2.0
"""Subcommands of ``canet``, one module each with ``add_arguments(parser)`` and ``run(arguments) -> exit status``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def argument(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Wrap ``parse`` as the ``type`` of an argument, because argparse drops the message of a ValueError."""

    def parsed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``, without which commands refuse to replace existing outputs."""
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")
