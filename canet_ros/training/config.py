# SPDX-License-Identifier: Apache-2.0
"""What decides a training, and the checks of it before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from canet_ros.inference.model_folder import Resolution
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
        ("epochs", "batch_size", "warmup_steps", "loss_stride", "val_every"),
    ),
    (
        "0 or more",
        lambda value: value >= 0,
        (
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
    ("above 0, and 1 at most", lambda value: 0 < value <= 1, ("hard_share",)),
    ("0 or more and below 1", lambda value: 0 <= value < 1, ("ema_decay",)),
    ("above 1", lambda value: value > 1, ("class_sharpness",)),
)


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the weights beside classes, pictures and device; kept beside them. Checked when it is made.

    Attributes:
        data: folder with the splits ``train`` and ``val``.
        data_licence: what the data may be used for; so may the weights.
        extra_data: folders of further labelled pictures. Of each an epoch sees its share, ``extra_share`` where it
            has none of its own, times the number of training pictures.
        splits: folders of ``data`` to train on; with ``val`` among them the last epoch counts, not the best on val,
            and no figure on val is kept: it would be of pictures that were learned.
        without: prefixes of picture names (drives) left out of the training.
        init: nothing, a model folder, or an ImageNet file of the backbone.
        freeze_stem: leave the backbone's layers up to stride 4 as ``init`` gave them.
        teacher: a model folder whose logits are learned beside the labels (distillation).
        loss_stride: the loss is taken at the crop's size over ``loss_stride``.
        class_sharpness, dice_share, hard_share: see ``loss``.
        crop: (width, height) of a training sample.
        max_aspect: two batches of three are wider than ``crop``, up to this width per height (``view_shapes``), since
            a network runs in its camera's shape; 0 for ``crop`` alone.
        epochs: length of the schedule.
        sync_batch_norm: several processes on GPUs take batch norm's statistics over the whole batch, not each its own.

    Raises:
        ValueError: a value is out of its range; one line that begins with the field's name.
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
    epochs: int = 30
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
        for words, holds, names in _RANGES:
            for name in names:
                value = getattr(self, name)
                if not (math.isfinite(value) and holds(value)):
                    raise ValueError(f"{name} {value!r}: must be {words}")
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
    # A whole number is a float too, but true is no number.
    allowed = (int, float) if expected is float else (expected,)
    if expected in (int, float, tuple) and (isinstance(value, bool) or not isinstance(value, allowed)):
        kind = {int: "a whole number", float: "a number", tuple: "a tuple"}[expected]
        raise ValueError(f"{name} {value!r}: expected {kind}")
