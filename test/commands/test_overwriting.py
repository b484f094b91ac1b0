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

RANDOM = "--model random"
QUICK = f"{RANDOM} --engine onnxruntime --precision fp32 --device cpu"
IMPORT = "labels import scenes/train/labels --format masks --images scenes/train/images --classes cityscapes"
EVALUATE = f"evaluate --data scenes {QUICK}"
# A command line with outputs named out, and files that it would write.
OUTPUTS = [
    ("demo --out out", "out/summary.json", "out/contact_sheet.png", "out/overlay_000.png", "out/drive/drive_0.mcap"),
    (
        f"segment picture.png --out out {QUICK}",
        "out/picture_mask.png", "out/picture_overlay.jpg", "out/picture_group_a.png",
    ),
    (f"segment-bag drive out {QUICK}", "out/metadata.yaml"),
    (f"segment-bag drive new --json out {QUICK}", "out"),
    ("extract segmented --video out.mp4", "out.mp4"),
    ("record out --topics /x --duration 1", "out/metadata.yaml"),
    (f"report drive --out out {QUICK}", "out"),
    (f"{IMPORT} --out out", "out/train/labels/picture.png"),
    (f"labels check scenes --out out.png {QUICK}", "out.png"),
    ("train --out out --data scenes --name x --epochs 1", "out/model/model.yaml"),
    (f"adapt scenes --out out {RANDOM} --minutes 1", "out/model.yaml"),
    (f"{EVALUATE} --json out", "out"),
    (f"{EVALUATE} --reliability out.png", "out.png"),
    (f"{EVALUATE} --confusion out.png", "out.png"),
    (f"{EVALUATE} --worst out.png", "out.png"),
    ("ablate --out out --data scenes --epochs 1", "out/ablation.json", "out/ablation.md"),
    ("import weights.pth --out out", "out/model.yaml", "out/model.onnx", "out/weights.safetensors"),
    (f"export --out out {RANDOM}", "out"),
    (f"benchmark --json out {RANDOM}", "out"),
    (f"benchmark --report out {RANDOM}", "out/report.json", "out/report.md", "out/steps/mine.txt"),
    ("models --json out", "out"),
    ("doctor --json out --graph-only", "out"),
]  # fmt: skip
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
# Those that are quick when they do it.
FORCED = ("segment", "segment-bag", "extract", "report", "evaluate", "export", "models", "doctor")


def parsers_of(command: str) -> list[argparse.ArgumentParser]:
    """The parser of a command and those of its actions."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"canet_ros.commands.{command.replace('-', '_')}").add_arguments(parser)
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return [parser, *(one for of_action in choices for one in of_action.values())]


def test_every_command_and_every_path_that_it_takes_is_in_a_list() -> None:
    words = {(line.split()[0], word) for line, *_ in OUTPUTS for word in line.split()}
    taken = {
        (command, (action.option_strings or [action.dest])[-1])
        for command in COMMANDS
        for parser in parsers_of(command)
        for action in parser._actions
        if getattr(action.type, "__name__", "") in ("Path", "local_path", "_location")
    }
    assert taken <= words | LABELS | INPUTS
    assert {command for command, _ in words | LABELS} == COMMANDS.keys()


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


def prepare(line: str, file: str, folder: Path) -> Path:
    """The inputs of this command, and something at the path of its output."""
    if "drive" in line.split() or "segmented" in line:
        drives = pytest.importorskip("drives")
        topic = drives.TOPICS["/front/image_raw"]
        image = drives.image(drives.images(1)[0], 10**9)
        recorded = drives.Recorded(topic.name, topic.msgtype, 10**9, image)
        drives.write_bag(folder / "drive", [recorded], topics=[topic])
    if line.startswith(("demo", "doctor")):
        pytest.importorskip("rclpy")
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    return path


@pytest.mark.parametrize(("line", "file"), [(line, file) for line, *files in OUTPUTS for file in files])
def test_what_exists_is_kept_and_named(
    line: str, file: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = prepare(line, file, folder)
    before = sorted(folder.rglob("*"))
    command = line.split()[0]
    assert main(line.split()) == 1
    (error,) = [
        text for text in capsys.readouterr().err.splitlines() if text.startswith(f"canet {command}: ")
    ]
    # Of a folder that must be new the folder is named.
    assert any(f"{there} exists" in error for there in (file, Path(file).parent, "out", "out/train"))
    assert "--force" in error or command in ("record", "train")
    assert path.read_text() == "mine"
    assert sorted(folder.rglob("*")) == before, "and nothing else was begun"


@pytest.mark.parametrize(
    ("line", "file"), [(line, files[0]) for line, *files in OUTPUTS if line.split()[0] in FORCED]
)
def test_force_replaces_it(line: str, file: str, folder: Path) -> None:
    path = prepare(line, file, folder)
    if "segmented" in line:
        pytest.importorskip("av")
        assert main(f"segment-bag drive segmented {QUICK}".split()) == 0
    assert main([*line.split(), "--force"]) == 0
    assert path.read_bytes() != b"mine"
