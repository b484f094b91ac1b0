# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy for every pixel, Dice for every class: rare, thin classes decide the mean."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from canet_ros.training.dataset import IGNORED


def class_weights(pixels: NDArray[np.int64], sharpness: float = 1.05) -> Tensor:
    """1 / ln(sharpness + share of pixels) (Paszke et al., ENet, 2016, section 5.2), scaled to mean 1, (classes,)."""
    share = pixels / max(int(pixels.sum()), 1)
    weights = 1.0 / np.log(sharpness + share)
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor, dice_share: float) -> Tensor:
    """Weighted cross-entropy plus ``dice_share`` times soft Dice, a scalar.

    Args:
        logits: (B, classes, H, W), any floating type.
        labels: (B, H, W) int64, ``IGNORED`` where unknown.
        weights: (classes,) float32.
        dice_share: weight of the Dice term; 0 leaves it out.
    """
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORED)
    if dice_share == 0:
        return loss
    return loss + dice_share * _dice_loss(logits, labels)


def _dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes that occur in the batch (Milletari et al., V-Net, 2016)."""
    known = (labels != IGNORED).unsqueeze(1)
    probability = logits.softmax(dim=1) * known
    truth = torch.zeros_like(logits).scatter_(1, labels.where(labels != IGNORED, 0).unsqueeze(1), 1.0) * known
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    size = probability.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    occurs = truth.sum(dim=(0, 2, 3)) > 0
    dice = (2 * overlap + 1) / (size + 1)
    return 1 - dice[occurs].mean() if bool(occurs.any()) else logits.sum() * 0
