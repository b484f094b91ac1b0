# SPDX-License-Identifier: Apache-2.0
"""Hints work where they are shown: in a checkout, in a colcon workspace, in a pip environment."""

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
from canet_ros.hints import canet_command, pip_install, see_docs

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "canet_ros"


def programs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    program = folder / "canet"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither a workspace nor an environment with the program."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_command_on_the_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(bare / "bin")))
    assert canet_command("export --calibrate") == "canet export --calibrate"


def test_command_of_a_workspace(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(bare / "install" / "canet_ros" / "lib" / "canet_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/opt/ros/none:{bare / 'install' / 'canet_ros'}")
    assert canet_command("export") == "ros2 run canet_ros canet export"


def test_command_of_which_nothing_is_known(bare: Path) -> None:
    assert canet_command("export") == "canet export"


def test_a_page_is_named_by_the_file_that_is_there(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert see_docs("install.md") == f"see {ROOT / 'docs' / 'install.md'}"
    docs = bare / "install" / "share" / "canet_ros" / "docs"
    docs.mkdir(parents=True)
    (docs / "install.md").touch()
    monkeypatch.setattr(share, "__file__", str(bare / "site-packages" / "canet_ros" / "share.py"))
    assert see_docs("install.md") == "see docs/install.md of canet_ros"
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(bare / "install"))
    assert see_docs("install.md") == f"see {docs / 'install.md'}"


def test_packages() -> None:
    assert pip_install("onnxruntime", "onnx") == "pip install onnxruntime onnx"


def test_no_hint_asks_a_registry_for_a_package_of_our_name() -> None:
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    wrong = [
        str(p.relative_to(ROOT)) for p, text in texts.items() if re.search(r"pip install \S*canet_ros", text)
    ]
    assert not wrong


def test_pages_and_commands_in_messages_go_through_the_hints() -> None:
    """Docstrings may name a page; what a message says must be found where it is shown."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        }
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        wrong = [t for t in texts - docstrings if re.search(r"see docs/\w|run: canet |with 'canet ", t)]
        assert not wrong, path


def test_every_page_that_a_hint_names_exists() -> None:
    named = {
        page
        for path in PACKAGE.rglob("*.py")
        for page in re.findall(r'see_docs\("([^"]+)"\)', path.read_text())
    }
    assert named
    assert {page for page in named if not (ROOT / "docs" / page).is_file()} == set()


# Options of other programs (docker, nvidia-smi, pip, ros2, rosbags-convert) and of nodes that messages name.
OTHER_PROGRAMS = frozenset(
    (
        *("--clock", "--dst", "--ipc", "--params-file", "--ros-args", "--shm-size", "--src", "--upgrade"),
        "--version",
    )
)


class UsageError(Exception):
    """A command line that ``canet`` does not take."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = Parser(prog=command)
    importlib.import_module(f"canet_ros.commands.{command.replace('-', '_')}").add_arguments(parser)
    return parser


def written(node: ast.expr) -> str:
    """A text, or one with values in it, each of which is 64 here."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "64" for part in node.values)
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    assert isinstance(node, ast.Constant), ast.dump(node)
    return str(node.value)


def messages(tree: ast.Module) -> Iterator[str]:
    """All texts of more than one word that are not docstrings."""
    of_values = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            text = written(node)
            if id(node) not in of_values | docstrings and " " in text:
                yield text


MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def test_every_command_line_of_a_hint_is_taken_by_its_command() -> None:
    lines = [
        written(node.args[0])
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "canet_command"
    ]
    assert len(lines) > 5
    for line in lines:
        command, *arguments = line.split()
        assert command in COMMANDS, line
        parser = parser_of(command)
        if arguments:  # of a command alone --help tells the rest
            try:
                parser.parse_args(arguments)
            except UsageError as error:
                pytest.fail(f"canet {line}: {error}")


def test_every_option_that_a_message_names_is_there_and_takes_the_value_that_it_names() -> None:
    actions: dict[str, list[argparse.Action]] = {}
    own: dict[str, set[str]] = {}
    for command in COMMANDS:
        for action in parser_of(command)._actions:
            for option in action.option_strings:
                actions.setdefault(option, []).append(action)
                own.setdefault(command, set()).add(option)
    named = 0
    for path, tree in MODULES.items():
        command = path.stem.replace("_", "-") if path.parent.name == "commands" else ""
        for text in messages(tree):
            first = re.match(r"--[a-z][a-z0-9-]*", text)  # a message about what was given to this command
            if first and command in own:
                assert first[0] in own[command] | OTHER_PROGRAMS, f"{path}: {text!r}"
            for option, value in re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)(?: ([a-z][a-z0-9_]*))?", text):
                if option in OTHER_PROGRAMS:
                    continue
                assert option in actions, f"{path}: {text!r}"
                named += 1
                choices = [action.choices for action in actions[option] if action.choices]
                takes_it = not choices or any(value in some for some in choices)
                assert takes_it or not value or value in PROSE, f"{path}: {option} {value}: {text!r}"
    assert named > 50


# Words of a sentence that goes on behind an option.
PROSE = frozenset(("and", "the", "is", "or", "to", "for", "must", "may", "of", "in", "with"))
