# SPDX-License-Identifier: Apache-2.0
"""The documentation against the code: links lead somewhere, commands and what they are told exist, Python blocks run.

Not asserted here: the parameter table (test_package.py), and that commands do what is said of them.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from canet_ros.cli import COMMANDS, main
from canet_ros.launching.arguments import DEMO_ARGUMENTS, given_parameters, launch_arguments
from canet_ros.launching.parameter_table import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
MAKE_VARIABLES = set(re.findall(r"\$\(([A-Z_]+)\)", (ROOT / "Makefile").read_text()))


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def shell_commands(document: Path) -> list[list[str]]:
    """Words of each command of the bash blocks, without what the shell itself takes: variables, redirection."""
    lines = "\n".join(code_blocks(document, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines for words in _commands_of(line)]


def _commands_of(line: str) -> list[list[str]]:
    words, commands = shlex.split(line, comments=True), []
    while words:
        end = words.index("&&") if "&&" in words else len(words)
        command, words = words[:end], words[end + 1 :]
        while command and re.match(r"[A-Z_]+=", command[0]):
            command = command[1:]
        commands.append(command[: command.index(">")] if ">" in command else command)
    return [command for command in commands if command]


def commands_in_the_text(document: Path, program: str) -> list[list[str]]:
    """Words of what stands between backquotes and begins with a program's name."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(span) for span in re.findall(rf"`(?:\.venv/bin/)?({program} [^`]+)`", text)]


def canet_words(command: list[str]) -> list[str] | None:
    """What ``canet`` is told, however it is started; None: the command is another."""
    for start in (["canet"], ["ros2", "run", "canet_ros", "canet"], ["-m", "canet_ros.cli"]):
        for at in range(len(command)):
            if command[at : at + len(start)] == start and (at == 0 or command[0] == "torchrun"):
                return [word for word in command[at + len(start) :] if word != "..."]
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert not missing


def test_every_page_is_in_the_sites_navigation() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    trees = "\n".join(re.findall(r"```{toctree}(.*?)```", index, re.DOTALL))
    listed = re.findall(r"^([a-z-]+)$", trees, re.MULTILINE)
    assert sorted(listed) == sorted(
        page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    commands = [*shell_commands(document), *commands_in_the_text(document, "make")]
    wanted = {words[1] for words in commands if words[:1] == ["make"]}
    assert wanted <= MAKE_TARGETS
    given = {word.partition("=")[0] for words in commands if words[0] == "make" for word in words[2:]}
    assert given <= MAKE_VARIABLES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_canet_takes_the_commands_of_the_bash_blocks(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in COMMANDS:
        module = f"canet_ros.commands.{command.replace('-', '_')}"
        monkeypatch.setattr(f"{module}.run", lambda arguments: 0)
    for words in map(canet_words, shell_commands(document)):
        if words is not None:
            required = ["--data", "DATA", "--name", "NAME", "--out", "OUT"] if words[0] == "train" else []
            assert main([words[0], *required, *words[1:]]) == 0, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_canet_commands_in_the_text_and_their_options_exist(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands_in_the_text(document, "canet"):
        if words[1] == "COMMAND":
            continue
        assert words[1] in COMMANDS, words
        with pytest.raises(SystemExit):
            main([words[1], "--help"])
        known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"{document.name}: {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_launch_files_and_their_arguments_exist(document: Path) -> None:
    for words in [*shell_commands(document), *commands_in_the_text(document, "ros2")]:
        if words[:3] != ["ros2", "launch", "canet_ros"]:
            continue
        text = (ROOT / "launch" / words[3]).read_text()
        own = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text)
        own += [argument.name for argument in DEMO_ARGUMENTS if "DEMO_ARGUMENTS" in text]
        given = dict(word.split(":=", 1) for word in words[4:] if not word.startswith("--"))
        choices = {argument.name: argument.choices for argument in launch_arguments()}
        assert set(given) <= {*choices, *own}, words
        assert [n for n, value in given.items() if choices.get(n) and value not in choices[n]] == [], words
        given_parameters({name: value for name, value in given.items() if name in choices})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_programs_of_the_package_and_their_parameters_exist(document: Path) -> None:
    programs = re.findall(r'"(\w+) = canet_ros', (ROOT / "setup.py").read_text())
    names = {spec.name for spec in PARAMETERS}
    for words in [*shell_commands(document), *commands_in_the_text(document, "ros2")]:
        if words[:3] == ["ros2", "run", "canet_ros"]:
            assert words[3] in programs, words
            assert {w.split(":=")[0] for at, w in enumerate(words) if words[at - 1] == "-p"} <= names, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_ros2_param_names_parameters_and_sets_them_to_their_type(document: Path) -> None:
    """As ``ros2 param`` of Jazzy and later reads a value: a mapping is no text to it, and nothing is sent."""
    defaults = {spec.name: spec.default for spec in PARAMETERS}
    for words in [*shell_commands(document), *commands_in_the_text(document, "ros2")]:
        if words[:2] != ["ros2", "param"] or len(words) < 5:
            continue
        assert words[4] in {*defaults, "class_names", "available_models"}, words
        if words[2] == "set":
            read = pytest.importorskip("rclpy.parameter").get_parameter_value(string_value=words[5])
            value = pytest.importorskip("rclpy.parameter").parameter_value_to_python(read)
            assert isinstance(value, type(defaults[words[4]])), words


def test_the_readme_is_short_and_its_first_screen_says_what_counts() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    first_screen = "\n".join(lines[:22])
    for word in (
        "labels every pixel",
        "docs/images/demo.jpg",
        "make demo",
        "make test",
        "**Speed**",
        "**Accuracy**",
    ):
        assert word in first_screen, word


@pytest.mark.parametrize(("heading", "page"), [("Speed", "performance.md"), ("Accuracy", "models.md")])
def test_figures_of_the_first_screen_are_those_of_the_page_that_it_links(heading: str, page: str) -> None:
    (paragraph,) = re.findall(rf"^\*\*{heading}\*\*.*?\n\n", (ROOT / "README.md").read_text(), re.M | re.S)
    assert page in paragraph
    measured = {float(text) for text in re.findall(r"\d+(?:\.\d+)?", (ROOT / "docs" / page).read_text())}
    figures = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)", re.sub(r"\d+x\d+|`[^`]*`", "", paragraph))
    assert len(figures) >= 5
    for figure in figures:
        decimals = len(figure.partition(".")[2])
        assert float(figure) in {round(value, decimals) for value in measured}, figure


def test_the_python_example_of_the_readme_runs() -> None:
    if not (ROOT / "models" / "canet-mobilenet_v2-camvid").is_dir():
        pytest.skip("the shipped model is not in this checkout")
    blocks = code_blocks(ROOT / "README.md", "python")
    assert len(blocks) == 1
    names = {"image_bgr": np.zeros((48, 64, 3), np.uint8)}
    exec(blocks[0], names)
    assert names["mask"].shape == (48, 64)


def test_your_own_classes_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's commands as they stand, on 2 images a split instead of 40, small, for one epoch."""
    if not (ROOT / "models" / "canet-mobilenet_v2-camvid").is_dir():
        pytest.skip("the shipped model is not in this checkout")
    page = ROOT / "docs" / "your-own-classes.md"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "my_classes.yaml").write_text(code_blocks(page, "yaml")[0])
    exec(code_blocks(page, "python")[0].replace(", 40,", ", 2,"), {})
    train, evaluate = (words for words in shell_commands(page) if words[0] == "canet")
    small = [
        "--epochs",
        "1",
        "--resolution",
        "96x72",
        "--crop",
        "96x64",
        "--batch-size",
        "2",
        "--workers",
        "0",
    ]
    assert main([*train[1:], *small]) == 0
    assert main([*evaluate[1:], "--engine", "torch", "--precision", "fp32", "--json", "figures.json"]) == 0
    assert set(json.loads((tmp_path / "figures.json").read_text())["iou"]) == {
        "drivable", "walkable", "moving", "else"
    }  # fmt: skip


def test_every_command_is_described_somewhere() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    assert [name for name in COMMANDS if f"canet {name}" not in text and f"make {name}" not in text] == []
