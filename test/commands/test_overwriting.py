# SPDX-License-Identifier: Apache-2.0
"""No command replaces a file that exists, unless --force is given; every path that a command takes is in a list below.

What is added to folders of labels is in test/unit/bags/test_label_folder.py.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest
import torch

from canet_ros.cli import COMMANDS, main
from canet_ros.simulation import StreetDrive, write_scenes

# Command, option (or positional) that names an output, and files that the command would write there: {} is its value.
# The rest of the command line is in COMPLETE.
OUTPUTS = [
    ("demo", "--out", "summary.json", "contact_sheet.png", "overlay_000.png", "drive/drive_0.mcap"),
    ("segment", "--out", "picture_mask.png", "picture_overlay.jpg", "picture_group_a.png"),
    ("segment-bag", "out", "metadata.yaml"),
    ("segment-bag", "--json", ""),
    ("extract", "--video", ""),
    ("record", "out", "metadata.yaml"),
    ("report", "--out", ""),
    ("labels import", "--out", "train/labels/picture.png"),
    ("labels check", "--out", ""),
    ("train", "--out", "model/model.yaml"),
    ("adapt", "--out", "model.yaml"),
    ("evaluate", "--json", ""),
    ("evaluate", "--worst", ""),
    ("ablate", "--out", "ablation.json", "ablation.md"),
    ("import", "--out", "model.yaml", "model.onnx", "weights.safetensors"),
    ("export", "--out", ""),
    ("benchmark", "--json", ""),
    ("benchmark", "--report", "report.json", "report.md", "steps/mine.txt"),
    ("models", "--json", ""),
    ("doctor", "--json", ""),
]
# Labels, which are added to what is there.
LABELS = {("pick", "--out"), ("extract", "--labels"), ("extract", "--masks")}
INPUTS = {
    ("adapt", "drive"),
    ("adapt", "--images"),
    ("adapt", "--replay"),
    ("train", "--config"),
    ("ablate", "--config"),
    ("labels", "export"),
    ("labels", "--images"),
    ("labels", "data"),
    ("demo", "--input"),
    ("segment", "input"),
    ("segment-bag", "input"),
    ("extract", "bag"),
    ("report", "bag"),
    ("pick", "bag"),
    ("evaluate", "--data"),
    ("import", "file"),
    ("import", "--picture"),
    ("benchmark", "--data"),
}
COMPLETE = {
    "segment": "picture.png --model random",
    "segment-bag": "drive --model random",
    "extract": "segmented",
    "report": "drive --model random",
    "labels import": "scenes/train/labels --format masks --images scenes/train/images --classes cityscapes",
    "labels check": "scenes --model random",
    "train": "--data scenes --name x --epochs 1",
    "adapt": "scenes --model random --minutes 1",
    "evaluate": "--data scenes --model random",
    "ablate": "--data scenes --epochs 1",
    "import": "weights.pth",
    "export": "--model random",
    "benchmark": "--model random",
    "record": "--topics /x --duration 1",
}
# Those that are quick when they do it.
FORCED = ["segment", "segment-bag", "extract", "report", "evaluate", "export", "models", "doctor"]
QUICK = {
    "doctor": "--graph-only",
    **dict.fromkeys(
        ("segment", "segment-bag", "report", "evaluate", "labels check"),
        "--engine onnxruntime --precision fp32 --device cpu",
    ),
}
SUFFIXES = {
    "--video": ".mp4",
    ("labels check", "--out"): ".png",
    "--worst": ".png",
}


def parsers_of(command: str) -> list[argparse.ArgumentParser]:
    """The parser of a command and those of its actions."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"canet_ros.commands.{command.replace('-', '_')}").add_arguments(parser)
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return [parser, *(one for of_action in choices for one in of_action.values())]


def test_every_command_and_every_path_that_it_takes_is_in_a_list() -> None:
    listed = {(command.split()[0], option) for command, option, *_ in OUTPUTS} | LABELS | INPUTS
    taken = {
        (command, (action.option_strings or [action.dest])[-1])
        for command in COMMANDS
        for parser in parsers_of(command)
        for action in parser._actions
        if getattr(action.type, "__name__", "") in ("Path", "local_path", "_location")
    }
    assert taken <= listed
    assert {command.split()[0] for command, *_ in OUTPUTS} | {
        command for command, _ in LABELS
    } == COMMANDS.keys()


@pytest.fixture
def folder(tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs of every command, and the current folder."""
    import cv2

    cv2.imwrite(str(tmp_path / "picture.png"), StreetDrive(seed=5, width=160, height=120).frame(0).image)
    for split in ("train", "val"):
        write_scenes(tmp_path / "scenes" / split, 1, first_seed=3, width=96, height=72)
    torch.save({}, tmp_path / "weights.pth")
    (tmp_path / "random").symlink_to(random_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drive(folder: Path) -> Path:
    drives = pytest.importorskip("drives")
    topic = drives.TOPICS["/front/image_raw"]
    recorded = drives.Recorded(topic.name, topic.msgtype, 10**9, drives.image(drives.images(1)[0], 10**9))
    return Path(drives.write_bag(folder / "drive", [recorded], topics=[topic]))


def command_line(command: str, option: str, out: str) -> list[str]:
    named = [option, out] if option.startswith("-") else [out]
    rest = COMPLETE.get(command, "").split()
    inputs = 0 if not rest or rest[0].startswith("-") else 1
    line = [*command.split(), *rest[:inputs], *named, *rest[inputs:]]
    if command == "segment-bag" and option != "out":
        line.insert(2, "new")
    return line + QUICK.get(command, "").split()


@pytest.mark.parametrize(
    ("command", "option", "file"),
    [(command, option, file) for command, option, *files in OUTPUTS for file in files],
)
def test_what_exists_is_kept_and_named(
    command: str, option: str, file: str, folder: Path, request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if command in ("segment-bag", "report"):
        request.getfixturevalue("drive")
    out = Path(f"out{SUFFIXES.get((command, option), SUFFIXES.get(option, ''))}")
    if command == "demo":
        pytest.importorskip("rclpy")
    path = out / file if file else out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = sorted(folder.rglob("*"))
    assert main(command_line(command, option, str(out))) == 1
    (line,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith(f"canet {command.split()[0]}: ")
    ]
    # Of a folder that must be new the folder is named.
    assert any(f"{there} exists" in line for there in (path, out, path.parent, out / "train"))
    assert "--force" in line or command in ("record", "train")
    assert path.read_text() == "mine"
    assert sorted(folder.rglob("*")) == before, "and nothing else was begun"


@pytest.mark.parametrize(
    ("command", "option", "file"),
    [(command, option, files[0]) for command, option, *files in OUTPUTS if command in FORCED],
)
def test_force_replaces_it(
    command: str, option: str, file: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    if command in ("segment-bag", "report"):
        request.getfixturevalue("drive")
    if command == "extract":
        pytest.importorskip("av")
        request.getfixturevalue("drive")
        assert main(["segment-bag", "drive", "segmented", "--model", "random", *QUICK["report"].split()]) == 0
    if command == "doctor":
        pytest.importorskip("rclpy")
    out = Path(f"out{SUFFIXES.get((command, option), SUFFIXES.get(option, ''))}")
    path = out / file if file else out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    assert main([*command_line(command, option, str(out)), "--force"]) == 0
    assert path.read_bytes() != b"mine"
