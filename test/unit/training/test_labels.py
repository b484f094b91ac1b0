# SPDX-License-Identifier: Apache-2.0
"""Labels that do not fit the class table, or not their images, are named by ``canet train`` and ``canet evaluate``."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from canet_ros.cli import main
from canet_ros.image_header import exif_orientation
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import ModelSpec, save_model

Labels = NDArray[np.uint8]
NAMES = ("else", "lesion", "vessel")
WIDTH, HEIGHT = 128, 96
Run = Callable[..., tuple[int, list[str], str]]


def ids(*of_areas: int) -> Labels:
    """Labels with vertical areas of equal width."""
    parts = np.array_split(np.zeros((HEIGHT, WIDTH), np.uint8), len(of_areas), axis=1)
    return np.hstack([part + np.uint8(i) for part, i in zip(parts, of_areas)])


def write(folder: Path, labels: Sequence[Labels]) -> None:
    for index, label in enumerate(labels):
        image = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        for kind, content in (("images", image), ("labels", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / kind / f"{index}.png"), content)


def table(tmp_path: Path, classes: int) -> Path:
    file = tmp_path / "classes.yaml"
    file.write_text(
        yaml.safe_dump([{"name": name, "color": [9 * i, 0, 0]} for i, name in enumerate(NAMES[:classes])])
    )
    return file


@pytest.fixture
def train(tmp_path: Path, canet_train: Run) -> Run:
    """Train on the data in ``tmp_path``; returns status, lines of stderr, stdout."""

    def run(classes: int = 2, *more: str) -> tuple[int, list[str], str]:
        return canet_train(
            "--data", tmp_path, "--classes", table(tmp_path, classes), "--batch-size", 2, *more
        )

    return run


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Evaluate a model of random weights on ``val``; returns status, lines of stderr, stdout."""

    def run(classes: int = 2) -> tuple[int, list[str], str]:
        spec = ModelSpec(
            "x", load_class_table(str(table(tmp_path, classes))), "canet_lite", resolution=(64, 48)
        )
        save_model(tmp_path / "model", spec, spec.build_network())
        arguments = f"evaluate --model {tmp_path / 'model'} --data {tmp_path} --engine torch"
        status = main(arguments.split())
        captured = capsys.readouterr()
        return status, captured.err.splitlines(), captured.out

    return run


def test_masks_of_two_classes_that_are_not_0_and_1(tmp_path: Path, train: Run, evaluate: Run) -> None:
    high = 255
    for split in ("train", "val"):
        write(tmp_path / split, [ids(0, 0, 0, high)] * 2)
    status, (*_, line), _ = train()
    assert status == 1
    assert "no label has a pixel of lesion" in line
    assert f"contain the ids 0, {high}: write 0 to 1" in line
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    status, lines, out = evaluate()
    assert status == 0
    (line,) = [line for line in lines if "lesion (1)" in line]
    assert f"ignored ids: {high} (25.0%)" in line
    assert "(over 1 of 2 classes)" in out


def test_a_class_without_pixels_is_a_warning(tmp_path: Path, train: Run, evaluate: Run) -> None:
    for split in ("train", "val"):
        write(tmp_path / split, [ids(0, 1)] * 2)
    status, lines, out = train(3)
    assert status == 0
    named = [line for line in lines if "no label has a pixel of the class vessel (2)" in line]
    assert [line.partition(":")[0] for line in named] == [str(tmp_path), str(tmp_path / "val")]
    assert "(over 2 of 3 classes)" in out
    _, lines, out = evaluate(3)
    assert len([line for line in lines if "vessel (2)" in line]) == 1


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def palette_png() -> bytes:
    """A palette PNG with ids 0 and 1."""
    row = b"\0" + bytes(WIDTH // 2) + b"\x01" * (WIDTH // 2)
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)),
        chunk(b"PLTE", bytes((0, 0, 0, 255, 0, 0))),
        chunk(b"IDAT", zlib.compress(row * HEIGHT)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(image: Labels, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (palette_png(), "palette indices"),
        (encoded(cv2.cvtColor(ids(0, 1), cv2.COLOR_GRAY2BGR)), "RGB colours"),
        (encoded(ids(0, 1).astype(np.uint16)), "got 16 bits"),
        (encoded(ids(0, 1)[:-2]), "sizes must agree"),
        (encoded(ids(0, 1), ".jpg"), "another kind of file"),
    ],
)
def test_labels_in_another_format(file: bytes, words: str, tmp_path: Path, train: Run, evaluate: Run) -> None:
    """Labels of val are checked before the first epoch, too."""
    for split in ("train", "val"):
        write(tmp_path / split, [ids(0, 1)] * 2)
    valid = (tmp_path / "train" / "labels" / "1.png").read_bytes()
    for split, run in (("train", train), ("val", train), ("val", evaluate)):
        (tmp_path / split / "labels" / "1.png").write_bytes(file)
        status, (line,), _ = run()
        assert status == 1
        assert words in line
        assert str(tmp_path / split / "labels" / "1.png") in line
        (tmp_path / "train" / "labels" / "1.png").write_bytes(valid)
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_files_that_are_left_out_are_named(tmp_path: Path, evaluate: Run) -> None:
    write(tmp_path / "val", [ids(255), ids(0, 1)])
    images, labels = tmp_path / "val" / "images", tmp_path / "val" / "labels"
    (labels / "alone.png").write_bytes((labels / "0.png").read_bytes())
    (images / "moving.gif").write_bytes(b"GIF89a")
    (images / ".hidden").write_bytes(b"")
    status, lines, _ = evaluate()
    assert status == 0
    for words in (
        "labels without an image in images/: alone.png",
        "without the suffix of an image: moving.gif",
        f"{labels / '0.png'}: no pixel has an id",
    ):
        assert len([line for line in lines if words in line]) == 1
    assert not any("hidden" in line for line in lines)
    cv2.imwrite(str(images / "1.bmp"), cv2.imread(str(images / "1.png")))
    status, lines, _ = evaluate()
    assert status == 1
    assert "have the same label file" in lines[-1]


# Images with an EXIF orientation


def tiff_header(orientation: int, order: str) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHHIHH", 1, 0x112, 3, 1, orientation, 0)
    return head + struct.pack(f"{order}I", 8) + entries + bytes(4)


def with_orientation(image: Labels, orientation: int, suffix: str = ".jpg", order: str = "<") -> bytes:
    """A file of the image with an EXIF orientation, 1 to 8."""
    exif = tiff_header(orientation, order)
    data = encoded(image, suffix)
    if suffix == ".jpg":
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    return data[:33] + chunk(b"eXIf", exif) + data[33:]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_that_of_opencv(order: str, suffix: str) -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 4] = 255
    for orientation in range(1, 9):
        file = with_orientation(image, orientation, suffix, order)
        assert exif_orientation(file) == orientation
        read = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        same = read.shape == image.shape and np.abs(read.astype(int) - image).mean() < 5
        assert same == (orientation == 1), orientation
    for other in (
        b"",
        encoded(image, suffix),
        with_orientation(image, 9),
        file[:30],
        tiff_header(3, order)[:12],
    ):
        assert exif_orientation(other) == 1


def set_orientation(folder: Path, orientation: int) -> None:
    for image in sorted((folder / "images").iterdir()):
        stored = cv2.imread(str(image))
        image.with_suffix(".jpg").write_bytes(with_orientation(stored, orientation))
        image.unlink()


def test_images_with_an_exif_orientation_are_reported_once(
    tmp_path: Path, train: Run, evaluate: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        write(tmp_path / split, [ids(0, 1)] * 4)
    set_orientation(tmp_path / "val", 3)
    for run in (train, evaluate):
        status, lines, _ = run()
        assert status == 0
        (line,) = [line for line in lines if "EXIF" in line]
        assert "EXIF orientation (4) are turned by it" in line
        assert str(tmp_path / "val" / "images" / "0.jpg") in line
    arguments = f"segment {tmp_path / 'val' / 'images'} --out {tmp_path / 'out'} --model {tmp_path / 'model'}"
    assert main([*arguments.split(), "--engine", "torch"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "EXIF" in line]
    assert "EXIF orientation (4) are turned by it" in line


def test_labels_of_unrotated_images_are_refused(tmp_path: Path, evaluate: Run) -> None:
    write(tmp_path / "val", [ids(0, 1)])
    set_orientation(tmp_path / "val", 6)
    status, lines, _ = evaluate()
    assert status == 1
    assert "after any EXIF orientation: sizes must agree" in lines[-1]
    label = tmp_path / "val" / "labels" / "0.png"
    cv2.imwrite(str(label), cv2.rotate(cv2.imread(str(label), -1), cv2.ROTATE_90_CLOCKWISE))
    assert evaluate()[0] == 0
