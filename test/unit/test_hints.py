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
from canet_ros.hints import canet_command, pip_install, see_docs

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


def test_command_on_the_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(add_program(bare / "bin")))
    assert canet_command("export --calibrate") == "canet export --calibrate"


def test_command_of_a_workspace(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_program(bare / "install" / "canet_ros" / "lib" / "canet_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/opt/ros/none:{bare / 'install' / 'canet_ros'}")
    assert canet_command("export") == "ros2 run canet_ros canet export"


def test_command_that_is_not_installed(bare: Path) -> None:
    assert canet_command("export") == "canet export"


def test_a_page_is_named_by_its_installed_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert see_docs("install.md") == f"see {ROOT / 'docs' / 'install.md'}"
    docs = bare / "install" / "share" / "canet_ros" / "docs"
    docs.mkdir(parents=True)
    (docs / "install.md").touch()
    monkeypatch.setattr(share, "__file__", str(bare / "site-packages" / "canet_ros" / "share.py"))
    assert see_docs("install.md") == "see docs/install.md of canet_ros"
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(bare / "install"))
    assert see_docs("install.md") == f"see {docs / 'install.md'}"


def test_pip_install() -> None:
    assert pip_install("onnxruntime", "onnx") == "pip install onnxruntime onnx"


def test_no_hint_installs_this_package_from_pypi() -> None:
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    wrong = [
        str(p.relative_to(ROOT)) for p, text in texts.items() if re.search(r"pip install \S*canet_ros", text)
    ]
    assert not wrong


def test_messages_name_pages_and_commands_through_hints() -> None:
    """Docstrings may name a page directly; a message must name one that exists where it is shown."""
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


def test_every_recommended_page_exists() -> None:
    named = {
        page
        for path in PACKAGE.rglob("*.py")
        for page in re.findall(r'see_docs\("([^"]+)"\)', path.read_text())
    }
    assert named
    assert {page for page in named if not (ROOT / "docs" / page).is_file()} == set()


# Options of nodes and of other programs (docker, nvidia-smi, pip, ros2, rosbags-convert) in messages.
OTHER_PROGRAMS = frozenset(
    (
        *(
            "--clock",
            "--dst",
            "--ipc",
            "--params-file",
            "--ros-args",
            "--shapes",
            "--shm-size",
            "--src",
            "--upgrade",
        ),
        "--version",
    )
)


class UsageError(Exception):
    """A command line that ``canet`` rejects."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = Parser(prog=command)
    importlib.import_module(f"canet_ros.commands.{command.replace('-', '_')}").add_arguments(parser)
    return parser


def evaluated(node: ast.expr) -> str:
    """The text of a literal; each value in an f-string becomes 64, or fp16 for a precision."""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value)
            if isinstance(part, ast.Constant)
            else "fp16"
            if "precision" in ast.unparse(part)
            else "64"
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return evaluated(node.left) + evaluated(node.right)
    assert isinstance(node, ast.Constant), ast.dump(node)
    return str(node.value)


def messages(tree: ast.Module) -> Iterator[str]:
    """All texts of more than one word, without docstrings."""
    in_f_strings = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            text = evaluated(node)
            if id(node) not in in_f_strings | docstrings and " " in text:
                yield text


MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def test_every_recommended_command_line_is_valid() -> None:
    lines = [
        evaluated(node.args[0])
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "canet_command"
    ]
    assert len(lines) > 5
    for line in lines:
        command, *arguments = line.split()
        assert command in COMMANDS, line
        parser = parser_of(command)
        if arguments:  # a command without arguments refers to its --help
            try:
                parser.parse_args(arguments)
            except UsageError as error:
                pytest.fail(f"canet {line}: {error}")


def test_every_option_and_value_named_in_a_message_exists() -> None:
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
            first = re.match(r"--[a-z][a-z0-9-]*", text)  # a message about an argument of this command
            if first and command in own:
                assert first[0] in own[command] | OTHER_PROGRAMS, f"{path}: {text!r}"
            for option, value in re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)(?: ([a-z][a-z0-9_]*))?", text):
                if option in OTHER_PROGRAMS:
                    continue
                assert option in actions, f"{path}: {text!r}"
                named += 1
                choices = [action.choices for action in actions[option] if action.choices]
                valid = not choices or any(value in some for some in choices)
                assert valid or not value or value in PROSE, f"{path}: {option} {value}: {text!r}"
    assert named > 50


# Words that follow an option in a sentence and are not its value.
PROSE = frozenset(("and", "the", "is", "or", "to", "for", "must", "may", "of", "in", "with"))
