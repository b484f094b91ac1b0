# SPDX-License-Identifier: Apache-2.0
"""Recommended commands, options and pages exist."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from canet_ros.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "canet_ros"


def test_every_recommended_page_exists() -> None:
    named = {
        page
        for path in PACKAGE.rglob("*.py")
        for page in re.findall(r'see_docs\("([^"]+)"\)', path.read_text())
    }
    assert named
    assert {page for page in named if not (ROOT / "docs" / page).is_file()} == set()


# Options of nodes and of other programs (docker, nvidia-smi, pip, ros2, rosbags-convert) in messages.
OTHER_PROGRAMS = {
    *("--clock", "--dst", "--ipc", "--params-file", "--ros-args", "--shapes", "--shm-size", "--src", "--upgrade"),
    *("--version", "--show-args", "--qos-profile-overrides-path"),
}  # fmt: skip


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command)
    importlib.import_module(f"canet_ros.commands.{command.replace('-', '_')}").add_arguments(parser)
    return parser


def text_of(node: ast.expr) -> str:
    """The text of a literal; each value in an f-string becomes 64, or fp16 for a precision."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "fp16" if "precision" in ast.unparse(node) else "64"


def nodes() -> Iterator[ast.AST]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text()))


def test_every_recommended_command_line_is_valid() -> None:
    lines = [
        text_of(node.args[0])
        for node in nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "canet_command"
    ]
    assert len(lines) > 5
    for line in lines:
        command, *arguments = line.split()
        assert command in COMMANDS, line
        if arguments:  # a command without arguments refers to its --help
            parser_of(command).parse_args(arguments)


def test_every_option_named_in_a_text_exists() -> None:
    parsers = [parser_of(command) for command in COMMANDS]
    for parser in parsers:  # with those of actions, as of canet labels import
        nested = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
        parsers += [one for of_action in nested for one in of_action.values()]
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    texts = [n.value for n in nodes() if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    named = {
        name for text in texts for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text) if " " in text
    }
    assert len(named) > 20
    assert named <= known | OTHER_PROGRAMS
