# SPDX-License-Identifier: Apache-2.0
"""The documentation agrees with the code: links resolve, commands and their options exist, code blocks run.

Not tested here: generated tables (test_package.py), docs/project/extending.md (test_extending.py), and that commands do
what the text says.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from canet_ros.cli import COMMANDS, main
from canet_ros.launching.arguments import DEMO_ARGUMENTS, given_parameters, launch_arguments
from canet_ros.launching.parameter_table import PARAMETERS
from canet_ros.simulation import StreetDrive

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
SPECS = {spec.name: spec for spec in PARAMETERS}
each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)).removesuffix(".md")
)


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def shell_commands(document: Path) -> Iterator[list[str]]:
    """Words of each command in the bash blocks, without variables and redirections."""
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
    """Commands that begin with this program, in bash blocks and between backquotes in the text."""
    yield from (words for words in shell_commands(document) if words[0] == program and len(words) > 1)
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(rf"`(?:\.venv/bin/)?({program} [^`]+)`", text):
        yield shlex.split(span)


def canet_words(command: list[str]) -> list[str] | None:
    """Arguments of ``canet``, however it is started; None for another command."""
    for start in (["canet"], ["ros2", "run", "canet_ros", "canet"], ["-m", "canet_ros.cli"]):
        for at in range(len(command)):
            if command[at : at + len(start)] == start and (at == 0 or command[0] == "torchrun"):
                return [word for word in command[at + len(start) :] if word != "..."]
    return None


@each_document
def test_links_and_anchors_exist(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text()):
        page = document.parent / target if target else document
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{target}#{anchor}"


def test_named_tests_and_pages_exist() -> None:
    for document in DOCUMENTS:
        for folder, name in re.findall(r"(test/[a-z/]+/)?(test_\w+\.py)", document.read_text()):
            assert list(ROOT.glob(f"{folder or 'test/**/'}{name}")), f"{document.name}: {folder}{name}"
    folders = ("canet_ros", "config", "docker", "launch", ".ci", ".github")
    for file in [*ROOT.glob("*"), *(file for folder in folders for file in (ROOT / folder).rglob("*"))]:
        text = file.read_text(errors="ignore") if file.is_file() else ""
        for page in re.findall(r"(?:docs/|see_docs\([\"'])([\w/-]+\.(?:md|svg))", text):
            assert (DOCS / page).is_file(), f"{file.relative_to(ROOT)}: docs/{page}"


def test_every_page_is_in_the_navigation() -> None:
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for tree in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            names = [re.sub(r".*<(.+)>", r"\1", entry) for entry in entries]
            listed |= {
                (page.parent / name.removesuffix(".md")).resolve().with_suffix(".md") for name in names
            }
    assert listed - set(PAGES) == set()
    assert set(PAGES) - listed == set()


@each_document
def test_make_targets_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for _, target, *variables in commands(document, "make"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for variable in variables:
            assert f"$({variable.partition('=')[0]})" in makefile, variable


@each_document
def test_bash_blocks_parse(document: Path) -> None:
    for block in code_blocks(document, "bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@each_document
def test_canet_commands_parse(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of bash blocks as written; of those in the text, the options."""
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


@each_document
def test_ros2_commands_parse(document: Path) -> None:
    programs = re.findall(r'"(\w+) = canet_ros', (ROOT / "setup.py").read_text())
    for words in commands(document, "ros2"):
        if words[1:3] == ["launch", "canet_ros"]:
            check_launch(words[3], words[4:])
        elif words[1:3] == ["run", "canet_ros"]:
            assert words[3] in programs, words
            set_here = {word.split(":=")[0] for at, word in enumerate(words) if words[at - 1] == "-p"}
            assert set_here <= SPECS.keys(), words
        elif words[1] == "param" and len(words) > 4:
            assert words[4] in {*SPECS, "class_names", "available_models"}, words
            if words[2] == "set":
                # ros2 param of Jazzy and later does not send a mapping as a string.
                rclpy = pytest.importorskip("rclpy.parameter")
                read = rclpy.get_parameter_value(string_value=words[5])
                assert isinstance(rclpy.parameter_value_to_python(read), type(SPECS[words[4]].default)), words


def check_launch(file: str, words: list[str]) -> None:
    text = (ROOT / "launch" / file).read_text()
    own = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text)
    own += [argument.name for argument in DEMO_ARGUMENTS if "DEMO_ARGUMENTS" in text]
    given = dict(word.split(":=", 1) for word in words if not word.startswith("--"))
    choices = {argument.name: argument.choices for argument in launch_arguments()}
    assert set(given) <= {*choices, *own}, words
    assert [n for n, value in given.items() if choices.get(n) and value not in choices[n]] == [], words
    given_parameters({name: value for name, value in given.items() if name in choices})


@each_document
def test_yaml_blocks_parse_and_set_valid_parameters(document: Path) -> None:
    for block in code_blocks(document, "yaml"):
        content = yaml.safe_load(block)
        if isinstance(content, dict) and "/**" in content:
            for name, value in content["/**"]["ros__parameters"].items():
                spec = SPECS[name]
                # rclpy flattens a mapping; the node reads groups written as one.
                spec.check(str(value) if isinstance(value, dict) else value)


@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if code_blocks(d, "python") and d.name != "extending.md"],
    ids=lambda path: str(path.relative_to(ROOT)).removesuffix(".md"),
)
def test_python_blocks_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, in the order of the page, in a folder with the files that they name; write_scenes writes fewer."""
    monkeypatch.chdir(tmp_path)
    frames = [StreetDrive(1, 640, 480).frame(index).image for index in range(2)]
    cv2.imwrite("street.jpg", frames[0])
    video = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 480))
    for frame in frames:
        video.write(frame)
    video.release()
    Path("README.md").write_text("not an image")
    names = {"image_bgr": frames[0]}
    for block in code_blocks(document, "python"):
        exec(block.replace(", 40,", ", 2,"), names)
    if document.name == "README.md":
        assert np.shape(names["mask"]) == (480, 640)


def test_your_own_classes_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's commands as written, on 2 images per split instead of 40, small, for one epoch."""
    page = DOCS / "how-to" / "your-own-classes.md"
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


def test_fine_tune_in_an_hour_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial's commands as written, on a short drive of a synthetic street and for one epoch."""
    pytest.importorskip("mcap")
    from drives import IMAGE, Recorded, bag_of, image, images

    stamps_ns = [10**9 * (index + 1) for index in range(12)]
    recorded = [
        Recorded("/front/image_raw", IMAGE, stamp_ns, image(pixels, stamp_ns))
        for stamp_ns, pixels in zip(stamps_ns, images(12, 320, 240))
    ]
    bag_of(tmp_path / "drive", recorded)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("canet_ros.training.adaptation.default_epochs", lambda steps, least: 1)
    page = DOCS / "tutorials" / "fine-tune-in-an-hour.md"
    lines = [words for words in shell_commands(page) if words[0] == "canet" and words[1] != "demo"]
    assert [words[1] for words in lines] == ["pick", "labels", "labels", "adapt", "segment-bag", "report"]
    for words in lines:
        anyway = ["--anyway"] if words[1] == "adapt" else []  # labels that nobody corrected teach nothing
        assert main([*words[1:], *anyway]) == 0, words
    for result in (
        "sheet.png",
        "my_model/model.yaml",
        "my_model-adaptation/report.html",
        "segmented",
        "report.html",
    ):
        assert (tmp_path / result).exists()


def test_every_command_is_described() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    assert [name for name in COMMANDS if f"canet {name}" not in text and f"make {name}" not in text] == []


def test_every_fault_and_state_is_described() -> None:
    camera_health = pytest.importorskip("canet_ros.ros.camera_health")
    from canet_ros.ros.fault_log import Fault

    page = (DOCS / "reference" / "diagnostics.md").read_text()
    values = [item.value for item in (*camera_health.CameraState, *Fault) if item.value]
    assert [value for value in values if f"`{value}`" not in page] == []
