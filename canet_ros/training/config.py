# SPDX-License-Identifier: Apache-2.0
"""Configuration of a training run, checked on construction."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

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
_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "1 or more",
        lambda value: value >= 1,
        ("batch_size", "warmup_steps", "loss_stride", "val_every"),
    ),
    (
        "0 or more",
        lambda value: value >= 0,
        (
            "epochs",
            "workers",
            "seed",
            "extra_share",
            "max_aspect",
            "teacher_share",
            "dice_share",
            "weight_decay",
            "poly_power",
            "backbone_learning_rate",
        ),
    ),
    ("above 0", lambda value: value > 0, ("learning_rate",)),
    ("above 0 and at most 1", lambda value: 0 < value <= 1, ("hard_share",)),
    ("0 or more and below 1", lambda value: 0 <= value < 1, ("ema_decay",)),
    ("above 1", lambda value: value > 1, ("class_sharpness",)),
)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines the weights, except classes, images and device; stored with the model.

    Attributes:
        data: folder with the splits ``train`` and ``val``.
        data_licence: permitted use of the data, and so of the weights.
        extra_data: folders of further labelled images. An epoch draws share times the number of training images from
            each; ``extra_share`` is the share of folders without their own.
        splits: folders of ``data`` to train on. If ``val`` is among them, no metrics on val are stored, because the
            model has been trained on these images, and ``keep_last`` is implied.
        without: prefixes of image names (drives) held out of the training.
        init: empty, a model folder, or an ImageNet file of the backbone.
        freeze_stem: keep the backbone's layers up to stride 4 as in ``init``.
        teacher: model folder whose logits are learned in addition to the labels (distillation).
        loss_stride: the loss is computed at the crop's size divided by ``loss_stride``.
        class_sharpness, dice_share, hard_share: see ``loss``.
        crop: (width, height) of a training sample, pixels.
        max_aspect: maximum ratio of width to height. Two of three batches are wider than ``crop``
            (``view_shapes``), because a network runs in the shape of its camera; 0: ``crop`` only.
        epochs: length of the schedule; 0: by the number of images (``default_epochs``).
        warmup_steps: of the learning rate; never more than a tenth of all steps.
        keep_last: store the last epoch instead of the best one on val, so that val stays unseen.
        sync_batch_norm: with several GPU processes, compute batch norm statistics over the whole batch.

    Raises:
        ValueError: a value is out of its range; the message is one line that begins with the field's name.
    """

    data: str
    name: str
    data_licence: str = ""
    architecture: str = "canet"
    backbone: str = "mobilenet_v2"
    fusion: str = "fca"
    head: str = "subpixel"
    extra_data: tuple[ExtraData, ...] = ()
    extra_share: float = 0.3
    splits: tuple[str, ...] = ("train",)
    without: tuple[str, ...] = ()
    init: str = ""
    freeze_stem: bool = False
    teacher: str = ""
    teacher_share: float = 1.0
    resolution: Resolution = (480, 360)
    crop: Resolution = (480, 352)
    max_aspect: float = 3.0
    epochs: int = 0
    batch_size: int = 8
    learning_rate: float = 2e-3
    backbone_learning_rate: float = 4e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    poly_power: float = 0.9
    class_sharpness: float = 1.2
    dice_share: float = 1.0
    hard_share: float = 1.0
    loss_stride: int = 2
    ema_decay: float = 0.998
    precision: str = "bf16"
    val_every: int = 2
    keep_last: bool = False
    seed: int = 0
    workers: int = 1
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        for option in fields(self):
            _check_type(option.name, getattr(self, option.name), type(option.default))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} {value!r}: choose one of {', '.join(choices)}")
        for description, in_range, names in _RANGES:
            for name in names:
                value = getattr(self, name)
                if not (math.isfinite(value) and in_range(value)):
                    raise ValueError(f"{name} {value!r}: must be {description}")
        if not self.splits:
            raise ValueError("splits (): name at least one folder of the data to train on")
        for name in ("resolution", "crop"):
            sides = getattr(self, name)
            if len(sides) != 2 or not all(isinstance(side, int) and 16 <= side <= 8192 for side in sides):
                raise ValueError(f"{name} {sides!r}: expected width and height, each 16 to 8192 pixels")
        if any(side % self.loss_stride for side in self.crop):
            raise ValueError(
                f"crop {self.crop!r}: both sides must be multiples of the loss_stride {self.loss_stride}"
            )


def _check_type(name: str, value: Any, expected: type) -> None:
    # An int is valid as a float; a bool is not valid as a number.
    allowed = (int, float) if expected is float else (expected,)
    if expected in (int, float, tuple) and (isinstance(value, bool) or not isinstance(value, allowed)):
        kind = {int: "an integer", float: "a number", tuple: "a tuple"}[expected]
        raise ValueError(f"{name} {value!r}: expected {kind}")
