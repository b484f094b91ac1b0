# SPDX-License-Identifier: Apache-2.0
"""Calibration of confidences: temperature of the softmax and expected calibration error.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.model.model_folder import load_network, load_spec, save_spec
from canet_ros.pipeline.segmentation import resize_nearest
from canet_ros.training.dataset import LabelledImage

if TYPE_CHECKING:  # torch fits temperatures; evaluating on other engines takes none
    from torch import Tensor

BINS = 15
_PIXEL_STRIDE = 4  # in both directions: neighbouring pixels add little
_MAX_IMAGES = 40  # evenly spaced: enough to fit one number
_TEMPERATURE_RANGE = (0.2, 5.0)
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Reliability:
    """Number of pixels at each confidence (0..255), and of the correct ones among them: (256,) int64 each."""

    pixels: NDArray[np.int64]
    correct: NDArray[np.int64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.pixels + other.pixels, self.correct + other.correct)

    def bins(self) -> NDArray[np.float64]:
        """Mean confidence, accuracy and share of all pixels of each non-empty one of ``BINS`` equal bins, (n, 3)."""
        levels = np.arange(256)
        bin_of_level = np.minimum(levels * BINS // 255, BINS - 1)
        sums = (self.pixels, self.pixels * levels / 255, self.correct)
        pixels, confidence, correct = (np.bincount(bin_of_level, values, BINS) for values in sums)
        used = pixels > 0
        columns = (confidence[used] / pixels[used], correct[used] / pixels[used], pixels[used] / pixels.sum())
        return np.stack(columns, axis=1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean of ``|confidence - accuracy|`` over the bins, weighted by their pixels."""
        confidence, accuracy, share = self.bins().T
        return float((share * np.abs(confidence - accuracy)).sum())


def reliability(
    labels: NDArray[np.uint8], mask: NDArray[np.uint8], confidence: NDArray[np.uint8], classes: int
) -> Reliability:
    """Reliability of one image; pixels labelled ``classes`` or above do not count."""
    known = labels < classes
    correct = known & (labels == mask)
    return Reliability(
        np.bincount(confidence[known], minlength=256), np.bincount(confidence[correct], minlength=256)
    )


def fit_temperature(folder: Path, images: Sequence[LabelledImage]) -> float:
    """The temperature that minimises cross-entropy, for the fp32 network at the model's resolution.

    Raises:
        ModelError: the model is broken.
        ValueError: an image cannot be read, or no pixel has a class of the model.
    """
    import torch

    from canet_ros.training.train import network_input

    spec, network = load_network(folder)
    stride = slice(None, None, _PIXEL_STRIDE)
    logits, labels = [], []
    chosen = images[:: -(-len(images) // _MAX_IMAGES)] if images else images
    for labelled in tqdm(chosen, desc="calibrate", unit="image"):
        image, label = labelled.read(len(spec.classes))
        with torch.inference_mode():
            image_logits = network(network_input(spec, image))[0, :, stride, stride].flatten(1).T
        image_labels = torch.from_numpy(
            resize_nearest(label, spec.resolution)[stride, stride].copy()
        ).flatten()
        known = image_labels < len(spec.classes)
        logits.append(image_logits[known])
        labels.append(image_labels[known].long())
    if not sum(map(len, labels)):
        raise ValueError("no pixel of the images has a class of the model")
    return _best_temperature(torch.cat(logits), torch.cat(labels))


def calibrate_temperature(folder: Path, images: Sequence[LabelledImage]) -> None:
    """Write the temperature that fits these images into ``model.yaml``; raises as ``fit_temperature``, and OSError."""
    save_spec(folder, replace(load_spec(folder), temperature=round(fit_temperature(folder, images), 3)))


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Golden-section search over the logarithm of the temperature; the loss has a single minimum."""
    from torch.nn import functional as F

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    low, high = map(math.log, _TEMPERATURE_RANGE)
    while high - low > 1e-3:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
