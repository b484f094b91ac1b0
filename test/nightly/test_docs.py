# SPDX-License-Identifier: Apache-2.0
"""The documentation against the code: links lead somewhere, commands and their options exist, Python blocks run.

Not asserted here: the parameter table (test_package.py), and that commands do what is said of them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from canet_ros.cli import COMMANDS, main
from canet_ros.launching.arguments import DEMO_ARGUMENTS, given_parameters, launch_arguments
from canet_ros.launching.parameter_table import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def shell_commands(document: Path) -> Iterator[list[str]]:
    """Words of each command of the bash blocks, without what the shell itself takes: variables, redirection."""
    for line in "\n".join(code_blocks(document, "bash")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            while command and re.match(r"[A-Z_]+=", command[0]):
                command = command[1:]
            command = command[: command.index(">")] if ">" in command else command
            if command:
                yield command


def commands(document: Path, program: str) -> Iterator[list[str]]:
    """Commands that begin with this program: those of the bash blocks, and those in the text between backquotes."""
    yield from (words for words in shell_commands(document) if words[0] == program and len(words) > 1)
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(rf"`(?:\.venv/bin/)?({program} [^`]+)`", text):
        yield shlex.split(span)


def canet_words(command: list[str]) -> list[str] | None:
    """What ``canet`` is told, however it is started; None: the command is another."""
    for start in (["canet"], ["ros2", "run", "canet_ros", "canet"], ["-m", "canet_ros.cli"]):
        for at in range(len(command)):
            if command[at : at + len(start)] == start and (at == 0 or command[0] == "torchrun"):
                return [word for word in command[at + len(start) :] if word != "..."]
    return None


def test_links_lead_to_files() -> None:
    for document in DOCUMENTS:
        targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
        missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
        assert not missing, document


def test_tests_that_are_named_exist() -> None:
    for document in DOCUMENTS:
        for folder, name in re.findall(r"(test/[a-z/]+/)?(test_\w+\.py)", document.read_text()):
            assert list(ROOT.glob(f"{folder or 'test/**/'}{name}")), f"{document.name}: {folder}{name}"


def test_every_page_is_in_the_sites_navigation() -> None:
    trees = re.findall(r"```{toctree}(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    listed = re.findall(r"^([a-z-]+)$", "\n".join(trees), re.MULTILINE)
    assert sorted([*listed, "index"]) == sorted(page.stem for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for _, target, *variables in commands(document, "make"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for variable in variables:
            assert f"$({variable.partition('=')[0]})" in makefile, variable


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_canet_takes_its_commands(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the bash blocks as they stand; of those in the text, the options."""
    for command in COMMANDS:
        monkeypatch.setattr(f"canet_ros.commands.{command.replace('-', '_')}.run", lambda arguments: 0)
    for words in map(canet_words, shell_commands(document)):
        if words is not None:
            required = ["--data", "DATA", "--name", "NAME", "--out", "OUT"] if words[0] == "train" else []
            assert main([words[0], *required, *words[1:]]) == 0, words
    for words in commands(document, "canet"):
        if words[1] == "COMMAND":
            continue
        action = words[2:3] if words[1] == "labels" else []  # a command of commands
        with pytest.raises(SystemExit):
            main([words[1], *action, "--help"])
        known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_ros2_takes_its_commands(document: Path) -> None:
    programs = re.findall(r'"(\w+) = canet_ros', (ROOT / "setup.py").read_text())
    defaults = {spec.name: spec.default for spec in PARAMETERS}
    for words in commands(document, "ros2"):
        if words[1:3] == ["launch", "canet_ros"]:
            check_launch(words[3], words[4:])
        elif words[1:3] == ["run", "canet_ros"]:
            assert words[3] in programs, words
            set_here = {word.split(":=")[0] for at, word in enumerate(words) if words[at - 1] == "-p"}
            assert set_here <= defaults.keys(), words
        elif words[1] == "param" and len(words) > 4:
            assert words[4] in {*defaults, "class_names", "available_models"}, words
            if words[2] == "set":
                # As ros2 param of Jazzy and later reads a value: a mapping is no text to it, and nothing is sent.
                rclpy = pytest.importorskip("rclpy.parameter")
                read = rclpy.get_parameter_value(string_value=words[5])
                assert isinstance(rclpy.parameter_value_to_python(read), type(defaults[words[4]])), words


def check_launch(file: str, words: list[str]) -> None:
    text = (ROOT / "launch" / file).read_text()
    own = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text)
    own += [argument.name for argument in DEMO_ARGUMENTS if "DEMO_ARGUMENTS" in text]
    given = dict(word.split(":=", 1) for word in words if not word.startswith("--"))
    choices = {argument.name: argument.choices for argument in launch_arguments()}
    assert set(given) <= {*choices, *own}, words
    assert [n for n, value in given.items() if choices.get(n) and value not in choices[n]] == [], words
    given_parameters({name: value for name, value in given.items() if name in choices})


def test_the_python_example_of_the_readme_runs() -> None:
    (block,) = code_blocks(ROOT / "README.md", "python")
    names = {"image_bgr": np.zeros((48, 64, 3), np.uint8)}
    exec(block, names)
    assert names["mask"].shape == (48, 64)


def test_your_own_classes_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's commands as they stand, on 2 images a split instead of 40, small, for one epoch."""
    page = ROOT / "docs" / "your-own-classes.md"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "my_classes.yaml").write_text(code_blocks(page, "yaml")[0])
    exec(code_blocks(page, "python")[0].replace(", 40,", ", 2,"), {})
    train, evaluate = (words for words in shell_commands(page) if words[0] == "canet")
    small = "--epochs 1 --resolution 96x72 --crop 96x64 --batch-size 2 --workers 0"
    assert main([*train[1:], *small.split()]) == 0
    assert main([*evaluate[1:], "--engine", "torch", "--precision", "fp32", "--json", "figures.json"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["iou"]) == {"drivable", "walkable", "moving", "else"}


def test_every_command_is_described_somewhere() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    assert [name for name in COMMANDS if f"canet {name}" not in text and f"make {name}" not in text] == []
