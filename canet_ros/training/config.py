# SPDX-License-Identifier: Apache-2.0
"""Configuration of a training run, checked on construction. Each field is an option of ``canet train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from canet_ros.model.model_folder import Resolution
from canet_ros.names import ARCHITECTURES, BACKBONES, FUSIONS, HEADS
from canet_ros.training.dataset import ExtraData

AUTOCAST_PRECISIONS = ("fp32", "bf16", "fp16")

_CHOICES = {
    "architecture": ARCHITECTURES,
    "backbone": BACKBONES,
    "fusion": FUSIONS,
    "head": HEADS,
    "precision": AUTOCAST_PRECISIONS,
}
_LEAST = {
    **dict.fromkeys(("batch_size", "warmup_steps", "loss_stride", "val_every"), 1),
    **dict.fromkeys(("epochs", "workers", "seed", "max_aspect", "teacher_share", "dice_share"), 0),
    **dict.fromkeys(
        ("weight_decay", "poly_power", "learning_rate", "backbone_learning_rate", "ema_decay"), 0
    ),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines the weights, except classes, images and device; stored with the model.

    The annotation of a field is the help of its option.

    Raises:
        ValueError: a value is out of its range; the message is one line that begins with the field's name.
    """

    data: Annotated[
        str,
        "folder with the splits train/ and val/, each with images/ and labels/; without val/, the last fifth "
        "of each recording is held out; or Cityscapes, with leftImg8bit/ and gtFine/",
    ]
    name: Annotated[str, "name of the model"]
    data_licence: Annotated[str, "permitted use of the data, and so of the weights; stored in model.yaml"] = (
        ""
    )
    architecture: Annotated[str, ", ".join(ARCHITECTURES)] = "canet"
    backbone: Annotated[str, ", ".join(BACKBONES)] = "mobilenet_v2"
    fusion: Annotated[str, ", ".join(FUSIONS)] = "fca"
    head: Annotated[
        str,
        f"{', '.join(HEADS)}; subpixel has logits every 4 pixels, bilinear every 8, as in the paper",
    ] = "subpixel"
    extra_data: Annotated[
        tuple[ExtraData, ...],
        "folders of further labelled images; SHARE: number of them drawn per epoch, relative to the images "
        "of --data (1: as many; default: 0.3); may be repeated",
    ] = ()
    # With val among them, no metrics on val are stored, and keep_last is implied.
    splits: Annotated[tuple[str, ...], "folders of --data to train on (default: train)"] = ("train",)
    without: Annotated[
        tuple[str, ...], "exclude training images whose names start with a prefix (a held-out drive)"
    ] = ()
    init: Annotated[
        str,
        "a model by name or folder, or published weights of the backbone: ImageNet files of torchvision, or those of "
        "EfficientViT's authors",
    ] = ""
    freeze_stem: Annotated[bool, "keep the backbone's weights up to stride 4 as in --init"] = False
    teacher: Annotated[
        str, "a model folder whose logits are learned in addition to the labels (distillation)"
    ] = ""
    teacher_share: Annotated[float, "weight of the distillation loss"] = 1.0
    resolution: Annotated[Resolution, "WIDTHxHEIGHT of the model's input"] = (480, 360)
    crop: Annotated[Resolution, "WIDTHxHEIGHT of a training sample"] = (480, 352)
    max_aspect: Annotated[
        float, "maximum width per height of a sample, at the area of --crop; 0: --crop only"
    ] = 3.0
    epochs: Annotated[
        int, "length of the schedule; 0: 30, more for a few images, fewer for many thousands"
    ] = 0
    batch_size: Annotated[int, "batch size"] = 8
    learning_rate: Annotated[float, "peak learning rate of all layers except the backbone"] = 2e-3
    backbone_learning_rate: Annotated[float, "peak learning rate of the backbone"] = 4e-4
    weight_decay: Annotated[float, "weight decay"] = 1e-2
    warmup_steps: Annotated[int, "warmup steps; at most a tenth of all steps"] = 100
    poly_power: Annotated[float, "power of the polynomial decay of the learning rate"] = 0.9
    class_sharpness: Annotated[float, "weight of rare classes: the closer to 1, the higher"] = 1.2
    dice_share: Annotated[float, "weight of the Dice loss relative to cross-entropy"] = 1.0
    loss_stride: Annotated[int, "compute the loss at a size smaller by this factor: faster"] = 2
    ema_decay: Annotated[float, "decay of the averaged weights, per step"] = 0.998
    precision: Annotated[str, "fp32, bf16 or fp16 (autocast)"] = "bf16"
    val_every: Annotated[int, "epochs between two evaluations on val"] = 2
    keep_last: Annotated[bool, "store the last epoch instead of the best one on val"] = False
    seed: Annotated[int, "seed"] = 0
    workers: Annotated[int, "processes that read and augment images"] = 1

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            self._require(name, getattr(self, name) in choices, f"choose one of {', '.join(choices)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            self._require(name, least <= value < math.inf, f"must be {least} or more")
        self._require("learning_rate", self.learning_rate > 0, "must be above 0")
        self._require("ema_decay", self.ema_decay < 1, "must be below 1")
        self._require("class_sharpness", 1 < self.class_sharpness < math.inf, "must be above 1")
        self._require("splits", bool(self.splits), "name at least one folder of the data to train on")
        for name in ("resolution", "crop"):
            valid = all(16 <= side <= 8192 for side in getattr(self, name))
            self._require(name, valid, "expected width and height, each 16 to 8192 pixels")
        divisible = not any(side % self.loss_stride for side in self.crop)
        self._require("crop", divisible, f"sides must be multiples of loss_stride {self.loss_stride}")

    def _require(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise ValueError(f"{name} {getattr(self, name)!r}: {expected}")
