# SPDX-License-Identifier: Apache-2.0
"""Confidences that can be trusted: the temperature of a model's softmax, and how far it is off (Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from canet_ros.inference.model_folder import load_network
from canet_ros.inference.segmenter import bring_to_size, resize_nearest
from canet_ros.training.dataset import LabelledImage

BINS = 15
_EVERY = 4  # of the pixels in a row and of the rows: neighbours tell the same
_MOST_PICTURES = 40  # evenly of all: one number is fitted
_WIDEST = (0.2, 5.0)
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Reliability:
    """How many pixels had a confidence (0..255), and how many of them were right: (256,) int64 each."""

    pixels: NDArray[np.int64]
    right: NDArray[np.int64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.pixels + other.pixels, self.right + other.right)

    def bins(self) -> list[tuple[float, float, float]]:
        """(mean confidence, share that is right, share of all pixels) of ``BINS`` equal steps; empty ones left out."""
        levels = np.arange(256)
        step = np.minimum(levels * BINS // 255, BINS - 1)
        found = []
        for index in range(BINS):
            inside = step == index
            pixels = int(self.pixels[inside].sum())
            if pixels:
                confidence = float((self.pixels * levels)[inside].sum() / pixels / 255)
                share = pixels / max(int(self.pixels.sum()), 1)
                found.append((confidence, float(self.right[inside].sum() / pixels), share))
        return found

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: ``|confidence - accuracy|``, by the pixels of each bin."""
        return sum(share * abs(confidence - right) for confidence, right, share in self.bins())


def reliability(
    truth: NDArray[np.uint8], mask: NDArray[np.uint8], confidence: NDArray[np.uint8], classes: int
) -> Reliability:
    """Of one picture; pixels whose true id is ``classes`` or above do not count."""
    known = truth < classes
    right = known & (truth == mask)
    return Reliability(
        np.bincount(confidence[known], minlength=256), np.bincount(confidence[right], minlength=256)
    )


def fit_temperature(folder: Path, pictures: Sequence[LabelledImage]) -> float:
    """The temperature at which the true classes are most probable, by the network in fp32 at the model's resolution.

    Raises:
        ModelError: the model is broken.
        ValueError: a picture cannot be read, or no pixel of them has a class.
    """
    spec, network = load_network(folder)
    width, height = spec.resolution
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    place = np.empty((height, width, 3), np.uint8)
    logits, labels = [], []
    chosen = pictures[:: -(-len(pictures) // _MOST_PICTURES)] if pictures else pictures
    for picture in tqdm(chosen, desc="calibrate", unit="picture"):
        image, label = picture.read(len(spec.classes))
        bring_to_size(image, place)
        rgb = torch.from_numpy(place[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            found = network((rgb - mean) / std)[0, :, ::_EVERY, ::_EVERY].flatten(1).T
        truth = torch.from_numpy(resize_nearest(label, spec.resolution)[::_EVERY, ::_EVERY].copy()).flatten()
        known = truth < len(spec.classes)
        logits.append(found[known])
        labels.append(truth[known].long())
    if not sum(map(len, labels)):
        raise ValueError("no pixel of the pictures has a class of the model")
    return _best_temperature(torch.cat(logits), torch.cat(labels))


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Golden-section search over the logarithm: the loss has one minimum."""

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    low, high = map(math.log, _WIDEST)
    while high - low > 1e-3:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def reliability_diagram(found: Reliability, title: str, side_px: int = 480) -> NDArray[np.uint8]:
    """Accuracy over confidence as bars, the diagonal where they should end, (H, W, 3) BGR uint8.

    The width of a bar's lower edge says nothing; the line below shows the share of the pixels in each bin.
    """
    margin_px, ink, bar_color = 56, (48, 40, 36), (196, 146, 78)
    picture = np.full((side_px + 2 * margin_px + 60, side_px + 2 * margin_px, 3), 255, np.uint8)
    bottom = margin_px + side_px

    def write(text: str, x: int, y: int, scale: float = 0.45) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, ink, 1, cv2.LINE_AA)

    step_px = side_px / BINS
    for confidence, right, share in found.bins():
        index = min(int(confidence * BINS), BINS - 1)
        x0, x1 = (margin_px + round(i * step_px) for i in (index, index + 1))
        cv2.rectangle(
            picture, (x0 + 1, bottom - round(right * side_px)), (x1 - 1, bottom), bar_color, cv2.FILLED
        )
        shade = 255 - round(215 * share**0.5)
        cv2.rectangle(picture, (x0 + 1, bottom + 4), (x1 - 1, bottom + 14), (shade,) * 3, cv2.FILLED)
    cv2.rectangle(picture, (margin_px, margin_px), (margin_px + side_px, bottom), ink)
    cv2.line(picture, (margin_px, bottom), (margin_px + side_px, margin_px), ink, 1, cv2.LINE_AA)
    for tenth in range(0, 11, 2):
        offset = round(tenth / 10 * side_px)
        write(f"{tenth / 10:.1f}", margin_px + offset - 12, bottom + 34)
        write(f"{tenth / 10:.1f}", 14, bottom - offset + 5)
    write(f"{title}: expected calibration error {found.calibration_error:.3f}", margin_px, 32, 0.5)
    write(
        "share of right pixels over their confidence; below, darker: more of the pixels",
        margin_px,
        bottom + 60,
    )
    return picture
