# SPDX-License-Identifier: Apache-2.0
"""Recommended commands, options and pages exist, and work in a checkout, a colcon workspace and a pip environment."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from canet_ros import share
from canet_ros.cli import COMMANDS
from canet_ros.hints import canet_command, see_docs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "canet_ros"


def add_program(folder: Path) -> Path:
    folder.mkdir(parents=True)
    program = folder / "canet"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither a workspace nor an environment provides the program."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_command_of_a_workspace(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_program(bare / "install" / "canet_ros" / "lib" / "canet_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/opt/ros/none:{bare / 'install' / 'canet_ros'}")
    assert canet_command("export") == "ros2 run canet_ros canet export"


def test_a_page_is_named_by_its_installed_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert see_docs("install.md") == f"see {ROOT / 'docs' / 'install.md'}"
    docs = bare / "install" / "share" / "canet_ros" / "docs"
    docs.mkdir(parents=True)
    (docs / "install.md").touch()
    monkeypatch.setattr(share, "__file__", str(bare / "site-packages" / "canet_ros" / "share.py"))
    assert see_docs("install.md") == "see docs/install.md of canet_ros"
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(bare / "install"))
    assert see_docs("install.md") == f"see {docs / 'install.md'}"


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
