# SPDX-License-Identifier: Apache-2.0
"""Self-test: a stored image and its mask, which every engine must reproduce before it is used.

It catches faults that metrics do not show: swapped channels, an image upside down, overflow, a broken driver, wrong
scales of int8, weights that are not the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from canet_ros.files import write_image
from canet_ros.hints import canet_command
from canet_ros.model.model_folder import ModelError
from canet_ros.opencv import ImageFileError, Pixels, read_image, resize
from canet_ros.pipeline.segmenter import Segmenter

IMAGE_FILE = "selftest.png"
MASK_FILE = "selftest_mask.png"
# Share of the pixels that must agree with fp32 in PyTorch.
AGREEMENT = 0.97
# Correct scales reach 0.965 to 0.993, swapped channels to 0.89 at most.
AGREEMENT_OF_INT8 = 0.95
# 0.89 to 0.96 are right from 240x180 to 960x720, upside down comes to 0.51 at most.
AGREEMENT_AT_OTHER_RESOLUTIONS = 0.80
# Below this share of the model's own pixels the mask of a correct engine is inconclusive: 0.62 to 0.66 at 96x64.
LEAST_SHARE_OF_PIXELS = 0.2


@dataclass(frozen=True)
class SelfTest:
    """The outcome.

    Attributes:
        agreement: share of the pixels with the stored class; None: not tested.
        text: the outcome in words.
        passed: True also if it was not tested.
    """

    agreement: float | None
    text: str
    passed: bool = True

    def __str__(self) -> str:
        return self.text


def self_test(segmenter: Segmenter) -> SelfTest:
    """Run the model's test image through the engine and compare.

    Raises:
        EngineError: the engine fails.
        ModelError: image or mask are broken.
    """
    (width, height), (own_width, own_height) = segmenter.resolution, segmenter.spec.resolution
    if width * height < LEAST_SHARE_OF_PIXELS * own_width * own_height:
        return SelfTest(None, "not tested with the model's image: it has too few pixels to be conclusive")
    if not (segmenter.folder / IMAGE_FILE).exists():
        command = canet_command("export --selftest --model FOLDER")
        return SelfTest(None, f"the model has no image to test engines with; {command} writes one")
    image, expected = _read(segmenter.folder, len(segmenter.spec.classes))

    def agreement_of(image: Pixels) -> float:
        return float((segmenter(image).mask == expected).mean())

    own = segmenter.resolution == segmenter.spec.resolution
    own_threshold = AGREEMENT_OF_INT8 if segmenter.engine.precision == "int8" else AGREEMENT
    threshold = own_threshold if own else AGREEMENT_AT_OTHER_RESOLUTIONS
    agreement = agreement_of(image)
    text = f"{100 * agreement:.1f} % of the pixels of the model's test image are correct"
    if agreement < threshold:
        return SelfTest(agreement, f"{text}, {100 * threshold:.0f} % are needed", passed=False)
    # At other resolutions masks differ by as much as swapped channels do at the model's own.
    if not own and agreement_of(np.ascontiguousarray(image[:, :, ::-1])) > agreement:
        return SelfTest(
            agreement, f"{text}, and more with red and blue swapped: the engine swaps them", passed=False
        )
    return SelfTest(agreement, text)


def write_self_test(folder: Path, images: Sequence[Pixels]) -> float:
    """Store the most discriminating image and its mask by fp32 in PyTorch; replaces an earlier one.

    Args:
        images: (H, W, 3) BGR; brought to the model's own resolution.

    Returns:
        The agreement of the worst simulated fault (channels swapped, or upside down), which must not pass.

    Raises:
        ModelError: the model is broken, or every image gives nearly the same mask with such a fault.
        EngineError: the reference does not start.
        OSError: the folder cannot be written.
    """
    reference = "auto" if (folder / "model.onnx").is_file() else "torch"
    segmenter = Segmenter.load(folder, "cpu", reference, "fp32")
    faults = []
    for source in images:
        image = resize(source, segmenter.resolution, cv2.INTER_AREA)
        mask = segmenter(image).mask
        swapped, turned = np.ascontiguousarray(image[:, :, ::-1]), np.ascontiguousarray(image[::-1, ::-1])
        worst = max(float((segmenter(other).mask == mask).mean()) for other in (swapped, turned))
        faults.append((worst, image, mask))
    worst, image, mask = min(faults, key=lambda fault: fault[0])
    if worst >= AGREEMENT_OF_INT8:
        raise ModelError(
            f"an image with its channels swapped, or upside down, gives {100 * worst:.1f} % of the same mask, "
            "so the test could not detect this: give more distinctive images, in colour and with several classes"
        )
    write_image(folder / IMAGE_FILE, image)
    write_image(folder / MASK_FILE, mask)
    return worst


def vivid(image: Pixels) -> Pixels:
    """The image in saturated colours, in which swapped channels change the mask of a robust network too."""
    grey = image.mean(2, keepdims=True)
    saturated: Pixels = np.clip(grey + 8 * (image - grey), 0, 255).astype(np.uint8)
    return saturated


def _read(folder: Path, classes: int) -> tuple[Pixels, Pixels]:
    try:
        image = read_image(folder / IMAGE_FILE)
        mask = read_image(folder / MASK_FILE, cv2.IMREAD_UNCHANGED)
    except (OSError, ImageFileError) as error:
        raise ModelError(f"the model's test image is broken: {error}") from error
    if mask.dtype != np.uint8 or mask.shape != image.shape[:2]:
        raise ModelError(
            f"{folder / MASK_FILE} is {mask.dtype} {mask.shape}, expected uint8 {image.shape[:2]} as {IMAGE_FILE}"
        )
    return image, mask
