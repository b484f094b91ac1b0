# SPDX-License-Identifier: Apache-2.0
"""Hints work where they are shown: in a checkout, in a colcon workspace, in a pip environment."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from canet_ros import share
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
