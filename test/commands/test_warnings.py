# SPDX-License-Identifier: Apache-2.0
"""Fallbacks, ignored files and broken packages are reported, in one line each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.simulation import write_scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder / "val", 2, first_seed=100, width=96, height=72)
    write_scenes(folder / "train", 4, first_seed=0, width=96, height=72)
    return folder


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "data"))


@pytest.fixture
def no_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv(
        "CANET_ROS_CACHE", str(tmp_path / "cache")
    )  # an empty cache, so that the engine compiles

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such ISA")

    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    return "not openvino on cpu: engine openvino does not start: RuntimeError: no such ISA"


def line_with(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """The only line of stderr that contains a text."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if text in line]
    return line


def test_segment_prints_fallback_reasons(
    no_openvino: str,
    random_model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["segment", data / "val" / "images", "--model", random_model, "--out", tmp_path / "out"]
    assert main([*map(str, arguments), "--device", "cpu"]) == 0
    line = line_with(capsys, "not openvino")
    assert line.startswith("runs on ")
    assert no_openvino in line


def evaluate(model: Path, data: Path, *more: str) -> int:
    return main(["evaluate", "--model", str(model), "--data", str(data), "--engine", "torch", *more])


def test_evaluate_reports_ignored_files(
    random_model: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = copied / "val" / "images", copied / "val" / "labels"
    first = sorted(labels.iterdir())[0]
    (labels / "alone.png").write_bytes(first.read_bytes())
    (images / "moving.gif").write_bytes(b"GIF89a")
    (images / ".hidden").write_bytes(b"")
    cv2.imwrite(str(first), np.full((72, 96), 255, np.uint8))
    worst = tmp_path / "worst.png"
    assert evaluate(random_model, copied, "--worst", str(worst)) == 0
    lines = capsys.readouterr().err.splitlines()
    for words in (
        "labels without an image in images/: alone.png",
        "without the suffix of an image: moving.gif",
        f"{first}: no pixel has an id",
    ):
        assert len([line for line in lines if words in line]) == 1
    assert not any("hidden" in line for line in lines)
    assert worst.is_file()


def test_two_images_with_the_same_label_are_refused(
    random_model: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted((copied / "val" / "images").iterdir())[0]
    other = first.with_suffix(".bmp")
    cv2.imwrite(str(other), cv2.imread(str(first)))
    assert evaluate(random_model, copied) == 1
    assert "have the same label file" in line_with(capsys, "canet evaluate: ")


BREAKS = {
    "a missing library": (
        "raise OSError('libx.so.1: cannot open')",
        "OSError: libx.so.1: cannot open",
    ),
    "an exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "a panic": ("class Panic(BaseException): pass\nraise Panic('rust')", "Panic: rust"),
    "a page of advice": (
        "try:\n    import nowhere_at_all\nexcept ImportError as e:\n    raise ImportError('\\n\\nREAD THIS\\n') from e",
        "ModuleNotFoundError: No module named 'nowhere_at_all'",
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_package_that_cannot_be_imported_is_named(kind: str, tmp_path: Path) -> None:
    code, words = BREAKS[kind]
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for command in (["segment", "x", "--out", "y"], ["models"]):
        done = subprocess.run(
            [sys.executable, "-m", "canet_ros.cli", *command],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1
        assert line.startswith(f"canet {command[0]}: ")
        assert "numpy" in line
        assert words in line
