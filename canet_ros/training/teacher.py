# SPDX-License-Identifier: Apache-2.0
"""Teacher of a distillation: a CANet model, or any imported ONNX network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import MODEL_FILE, ModelError, ModelSpec, load_network, load_spec
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
        ModelError: it is broken, or has no logits as output.
    """
    folder = Path(config.teacher)
    spec = load_spec(folder)
    if spec.classes.names != classes.names:
        raise ValueError(
            f"the classes of the teacher {folder} ({', '.join(spec.classes.names)}) differ from those of the "
            f"training ({', '.join(classes.names)})"
        )
    if spec.onnx is not None:
        return _load_onnx_teacher(folder, spec, config)
    network = load_network(folder)[1]
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(image: Tensor) -> Tensor:
        pixels = spec.normalize(image).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(config.precision, image.device.type):
            output: Tensor = network(pixels, config.loss_stride)
        return output

    return logits


def _load_onnx_teacher(folder: Path, spec: ModelSpec, config: TrainingConfig) -> Teacher:
    """A teacher that runs on the CPU, at the crop's size or at the fixed size of the network."""
    from canet_ros.model.onnx_file import read_onnx
    from canet_ros.model.onnx_interface import INPUT
    from canet_ros.model.onnx_network import pixels_to_logits
    from canet_ros.model.onnx_runner import onnx_runner

    assert spec.onnx is not None
    width, height = config.crop if spec.onnx.free_size else spec.resolution
    free_batch = spec.onnx.free_batch
    try:
        network = read_onnx(folder / MODEL_FILE)
        run = onnx_runner(pixels_to_logits(network, spec.onnx, len(spec.classes), (width, height)))
    except ModelError as error:
        raise ModelError(f"the teacher {folder}: {error}") from error

    def logits(image: Tensor) -> Tensor:
        size = [side // config.loss_stride for side in image.shape[2:]]
        bgr = image.flip(1)
        if tuple(bgr.shape[2:]) != (height, width):
            bgr = F.interpolate(bgr.float(), (height, width), mode="bilinear", antialias=True).round().byte()
        images = bgr.permute(0, 2, 3, 1).contiguous().cpu()
        batches = torch.split(images, len(images) if free_batch else 1)
        outputs = torch.cat([torch.from_numpy(run({INPUT: batch.numpy()})) for batch in batches])
        return F.interpolate(outputs.to(image.device), size, mode="bilinear", align_corners=False)

    return logits
