# SPDX-License-Identifier: Apache-2.0
"""Teacher of a distillation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import load_network
from canet_ros.training.config import TrainingConfig

# Crops (B, 3, H, W) RGB uint8 to logits (B, classes, H // loss_stride, W // loss_stride).
Teacher = Callable[[Tensor], Tensor]


def autocast(precision: str, device: str) -> torch.autocast:
    """The autocast context of a precision of ``config.AUTOCAST_PRECISIONS``."""
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(torch.device(device).type, types[precision], enabled=precision != "fp32")


def load_teacher(config: TrainingConfig, classes: ClassTable, device: str) -> Teacher:
    """Load the teacher of a training run.

    Raises:
        ValueError: its classes differ from those of the training.
        ModelError: it is broken, or an imported ONNX network.
    """
    folder = Path(config.teacher)
    spec, network = load_network(folder)
    if spec.classes.names != classes.names:
        raise ValueError(
            f"the classes of the teacher {folder} ({', '.join(spec.classes.names)}) differ from those of the "
            f"training ({', '.join(classes.names)})"
        )
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(image: Tensor) -> Tensor:
        pixels = spec.normalize(image).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(config.precision, image.device.type):
            output: Tensor = network(pixels, config.loss_stride)
        return output

    return logits
