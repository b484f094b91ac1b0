# SPDX-License-Identifier: Apache-2.0
"""Labels that somebody corrected survive every command that writes labels, whatever its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from drives import EXACT, Recorded, Segment, write_bag

from canet_ros.bags.label_folder import LabelFolder
from canet_ros.cli import main

NEW = np.full((6, 8), 1, np.uint8)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*.png")
    }


@pytest.mark.parametrize("option", ["pick --out", "extract --labels", "extract --masks"])
def test_labels_are_replaced_only_if_they_are_named(
    option: str, messages: Sequence[Recorded], random_model: Path, segment: Segment, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    labels = tmp_path / "labels"
    assert segment(write_bag(tmp_path / "drive", messages), tmp_path / "segmented") == 0
    command, name = option.split()
    options = ["--model", random_model, *EXACT] if command == "pick" else []

    def write(*more: str) -> int:
        return main([command, *map(str, (tmp_path / "segmented", name, labels, *options, *more))])

    assert write() == 0
    assert "existing ones kept" not in capsys.readouterr().out
    corrected = min(labels.rglob("front*.png"), key=lambda path: ("images" in path.parts, path.name))
    written = corrected.read_bytes()
    cv2.imwrite(str(corrected), np.full_like(cv2.imread(str(corrected), cv2.IMREAD_UNCHANGED), 7))
    before = contents(labels)
    assert write("--force") == 0
    assert contents(labels) == before
    assert "existing ones kept (--force-labels replaces them)" in capsys.readouterr().out
    assert write("--force-labels") == 0
    assert corrected.read_bytes() == written
    assert contents(labels).keys() == before.keys()


def test_a_name_in_any_split_is_taken_and_what_is_missing_is_added(tmp_path: Path) -> None:
    """An image that was moved to val/, and one whose label an interrupted run did not write."""
    for path in ("val/images/moved.jpg", "val/labels/moved.png", "train/images/half.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("mine")
    folder = LabelFolder(tmp_path)
    for name in ("moved", "half", "new"):
        folder.write(name, {"images": NEW, "labels": NEW})
    assert (folder.added, folder.kept) == (2, 1)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert found == {
        "val/images/moved.jpg",
        "val/labels/moved.png",
        *(f"train/{kind}/{name}.png" for kind in ("images", "labels") for name in ("half", "new")),
    }
    assert (tmp_path / "train" / "images" / "half.png").read_text() == "mine"
