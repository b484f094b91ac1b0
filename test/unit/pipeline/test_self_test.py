# SPDX-License-Identifier: Apache-2.0
"""Every shipped model has an image that tells a right engine from a wrong one, and its mask fits its weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from canet_ros.cli import main
from canet_ros.model.model_folder import ModelError, available_models
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import IMAGE_FILE, MASK_FILE, self_test

LITE = "canet_lite-mobilenet_v2-camvid"
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def lite() -> Segmenter:
    if LITE not in available_models():
        pytest.skip(f"{LITE} is not shipped here")
    return Segmenter.load(LITE, "cpu", "torch", "fp32")


@pytest.mark.parametrize("model", available_models())
def test_the_mask_of_a_shipped_model_fits_its_weights(model: str) -> None:
    """Where this fails after a training: ``canet export --selftest --model MODEL``."""
    found = self_test(Segmenter.load(model, "cpu", "torch", "fp32"))
    assert not found.absent
    assert found.agreement is not None
    assert found.agreement > 0.999, found


@pytest.mark.parametrize("model", available_models())
def test_the_engine_that_auto_takes_passes(model: str) -> None:
    assert self_test(Segmenter.load(model, "cpu")).passed


class Wrong:
    """A right engine with a fault before or after it."""

    def __init__(
        self, segmenter: Segmenter, before: Callable[[Images], Images], after: Callable[[Images], Images]
    ) -> None:
        engine = segmenter.engine
        self.name, self.device, self.precision, self.reason = engine.name, engine.device, "fp32", ""
        self.fallback_reasons, self.most_at_once = engine.fallback_reasons, engine.most_at_once
        self._engine, self._before, self._after = engine, before, after

    def run(self, images: Images) -> tuple[Images, Images]:
        mask, confidence = self._engine.run(np.ascontiguousarray(self._before(images)))
        return np.ascontiguousarray(self._after(mask)), confidence


FAULTS: dict[str, tuple[Callable[[Images], Images], Callable[[Images], Images]]] = {
    "channels swapped": (lambda x: x[..., ::-1], lambda m: m),
    "turned by 180 degrees": (lambda x: x[:, ::-1, ::-1], lambda m: m[:, ::-1, ::-1]),
    "mirrored result": (lambda x: x, lambda m: m[:, :, ::-1]),
    "shifted by a row": (lambda x: x, lambda m: np.roll(m, 12, axis=1)),
    "black": (lambda x: 0 * x, lambda m: m),
    "ids off by one": (lambda x: x, lambda m: (m + 1) % 11),
    "one class": (lambda x: x, lambda m: 0 * m + 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_engine_does_not_pass(lite: Segmenter, fault: str) -> None:
    wrong = Segmenter(lite.spec, Wrong(lite, *FAULTS[fault]), lite.resolution, lite.folder, lite.graph_hash)
    found = self_test(wrong)
    assert not found.passed, found
    assert "are needed" in str(found)


def test_a_model_without_an_image_says_so(segmenter: Segmenter) -> None:
    found = self_test(segmenter)
    assert found.absent
    assert found.passed
    assert "canet export --selftest" in str(found)


def test_the_command_makes_image_and_mask(
    lite: Segmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(lite.folder, tmp_path / "model"))
    for name in (IMAGE_FILE, MASK_FILE):
        (folder / name).unlink()
    shutil.copy(lite.folder / IMAGE_FILE, tmp_path / "street.png")
    (tmp_path / "pictures").mkdir()
    shutil.move(tmp_path / "street.png", tmp_path / "pictures")
    assert main(["export", "--model", str(folder), "--selftest", str(tmp_path / "pictures")]) == 0
    assert IMAGE_FILE in capsys.readouterr().out
    found = self_test(Segmenter.load(folder, "cpu", "torch", "fp32"))
    assert found.agreement is not None
    assert found.agreement > 0.999


@pytest.mark.parametrize("damage", ["no mask", "broken", "other size"])
def test_a_broken_test_image_is_a_broken_model(
    segmenter: Segmenter, tmp_path: Path, damage: str, lite: Segmenter
) -> None:
    folder = Path(shutil.copytree(lite.folder, tmp_path / "model"))
    if damage == "no mask":
        (folder / MASK_FILE).unlink()
    elif damage == "broken":
        (folder / IMAGE_FILE).write_bytes((folder / IMAGE_FILE).read_bytes()[:5000])
    else:
        shutil.copy(folder / IMAGE_FILE, folder / MASK_FILE)
    with pytest.raises(ModelError, match="selftest"):
        self_test(Segmenter(lite.spec, lite.engine, lite.resolution, folder, ""))
