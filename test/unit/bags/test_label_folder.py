# SPDX-License-Identifier: Apache-2.0
"""Labels that somebody corrected survive every command that writes labels, whatever its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from drives import EXACT, Recorded, Segment, write_bag

from canet_ros.bags import label_folder
from canet_ros.cli import main
from canet_ros.files import write_image


@pytest.fixture(scope="module")
def source(messages: Sequence[Recorded], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("labels") / "drive", messages)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*.png") if path.name[0] != "."]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def corrected(folder: Path) -> Path:
    """The first label, every pixel of it set to 7."""
    path = min(folder.rglob("front*.png"), key=lambda found: ("images" in found.parts, found.name))
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), np.full_like(label, 7))
    return path


@pytest.fixture
def write(source: Path, random_model: Path, segment: Segment, tmp_path: Path, request: pytest.FixtureRequest):
    """Writes labels into tmp_path/labels by the command of the parameter; its exit status."""
    runs = iter(range(99))

    def run(*options: object, model: Path = random_model, topics: Sequence[str] = ()) -> int:
        labels = tmp_path / "labels"
        engine = ["--model", model, *EXACT, *(["--topics", *topics] if topics else [])]
        if request.param == "pick":
            return main([*map(str, ("pick", source, "--count", 9, "--out", labels, *options, *engine))])
        bag = tmp_path / f"out{next(runs)}"
        assert main([*map(str, ("segment-bag", source, bag, *engine))]) == 0
        return main([*map(str, ("extract", bag, request.param, labels, *options))])

    return run


ALL = pytest.mark.parametrize("write", ["pick", "--labels", "--masks"], indirect=True)


@ALL
def test_what_is_there_is_kept_with_other_settings_too(
    write, sharp_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(topics=["/front/image_raw"]) == 0
    assert "existing ones kept" not in capsys.readouterr().out
    corrected(tmp_path / "labels")
    before = contents(tmp_path / "labels")
    assert write(model=sharp_model) == 0
    after = contents(tmp_path / "labels")
    assert before.items() < after.items(), "the other camera's are added, and no file is touched"
    names = {Path(name).name for name in before}
    assert f", {len(names)} existing ones kept: " in capsys.readouterr().out


@ALL
def test_force_keeps_what_somebody_changed_unless_it_is_named(
    write, tmp_path: Path, sharp_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    assert write() == 0
    first = contents(labels)
    path = corrected(labels)
    mine = path.read_bytes()
    assert write("--force", model=sharp_model) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "--force-labels" in line]
    assert f"1 labels in {labels} were changed" in line
    assert path.read_bytes() == mine
    masks = {name for name in first if "images" not in name}
    changed = {name for name in masks if contents(labels)[name][0] != first[name][0]}
    assert changed == masks, "those that nobody changed are another model's now"
    assert write("--force", "--force-labels") == 0
    assert {name: data for name, (data, _) in contents(labels).items()} == {
        name: data for name, (data, _) in first.items()
    }
    assert write("--force") == 0, "what was written by force is ours again"


@pytest.mark.parametrize("write", ["pick", "--labels"], indirect=True)
def test_an_image_that_was_moved_to_another_split_stays_there(write, tmp_path: Path) -> None:
    assert write() == 0
    labels = tmp_path / "labels"
    name = min((labels / "train" / "labels").iterdir()).name
    for kind in ("images", "labels"):
        (labels / "val" / kind).mkdir(parents=True)
        (labels / "train" / kind / name).rename(labels / "val" / kind / name)
    before = contents(labels)
    assert write() == 0
    assert contents(labels) == before


@ALL
def test_an_interrupted_run_is_completed_by_the_next(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def write_two(path: Path, image: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write_image(path, image)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(label_folder, "write_image", write_two)
        assert write() == 130
    first = contents(tmp_path / "labels")
    assert len(first) == 2
    assert write() == 0
    assert first.items() < contents(tmp_path / "labels").items()
    names = [
        sorted(path.name for path in (tmp_path / "labels").rglob(f"{kind}/*.png"))
        for kind in ("images", "labels")
    ]
    assert names[0] == names[1]
