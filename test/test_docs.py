# SPDX-License-Identifier: Apache-2.0
"""The documentation against the code: links lead somewhere, commands and options exist, Python blocks run.

Not asserted here: the parameter table (test_package.py), and commands that need a ROS installation.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from canet_ros.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def shell_commands(document: Path) -> list[list[str]]:
    lines = "\n".join(code_blocks(document, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


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
    wanted = {words[1] for words in shell_commands(document) if words[:1] == ["make"]}
    assert wanted <= MAKE_TARGETS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_canet_commands_and_their_options_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in shell_commands(document):
        if words[:3] == ["ros2", "run", "canet_ros"]:
            words = words[3:]
        if words[:1] != ["canet"]:
            continue
        assert words[1] in COMMANDS, words
        with pytest.raises(SystemExit):
            main([words[1], "--help"])
        known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"{document.name}: {' '.join(words)}"


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
    """The page's commands as they stand, on 2 pictures a split instead of 40, small, for one epoch."""
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
