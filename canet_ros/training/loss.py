# SPDX-License-Identifier: Apache-2.0
"""Loss: cross-entropy per pixel, and Dice per class, because rare, thin classes dominate the mean IoU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from canet_ros.training.dataset import IGNORED


def class_weights(pixels: NDArray[np.int64], sharpness: float) -> Tensor:
    """1 / ln(sharpness + share of pixels), scaled to mean 1, (classes,).

    The closer ``sharpness`` is to 1, the higher rare classes are weighted.
    Source: Paszke et al., ENet, 2016, section 5.2, with ``sharpness`` 1.02.
    """
    share = pixels / max(int(pixels.sum()), 1)
    weights = 1.0 / np.log(sharpness + share)
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor, dice_share: float) -> Tensor:
    """Weighted cross-entropy plus ``dice_share`` times soft Dice, a scalar.

    Args:
        logits: (B, classes, H, W), any floating type.
        labels: (B, H, W) int64, ``IGNORED`` where unknown.
        weights: (classes,) float32.
        dice_share: weight of the Dice term; 0 disables it.
    """
    log_probability = F.log_softmax(logits.float(), dim=1)
    loss = F.nll_loss(log_probability, labels, weight=weights, ignore_index=IGNORED)
    return loss + dice_share * _dice_loss(log_probability.exp(), labels) if dice_share else loss


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Mean of KL(teacher || student) at a temperature, times the temperature squared (Hinton et al., 2015).

    Both logits are (B, classes, H, W). The mean is over all pixels, including those without a label.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return divergence.mean() * temperature**2


def _dice_loss(probability: Tensor, labels: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes that occur in the batch (Milletari et al., V-Net, 2016)."""
    classes = probability.shape[1]
    known = labels != IGNORED
    ids = labels.where(known, 0)
    true_probability = probability.gather(1, ids.unsqueeze(1)).squeeze(1) * known
    overlap = probability.new_zeros(classes).scatter_add(0, ids.flatten(), true_probability.flatten())
    pixels = torch.bincount(labels.flatten(), minlength=IGNORED + 1)[:classes]
    size = torch.einsum("bchw,bhw->c", probability, known.to(probability.dtype)) + pixels
    dice = (2 * overlap + 1) / (size + 1)
    occurs = pixels > 0
    return 1 - dice[occurs].mean() if bool(occurs.any()) else probability.sum() * 0
