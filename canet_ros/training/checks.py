# SPDX-License-Identifier: Apache-2.0
"""What a training asks for, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from canet_ros.names import ARCHITECTURES, BACKBONES, FUSIONS, HEADS

if TYPE_CHECKING:
    from canet_ros.training.train import TrainingConfig

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


def check_config(config: TrainingConfig) -> None:
    """Raise ValueError with one line, that begins with the field's name, for the first value that cannot be."""
    for option in fields(config):
        _check_type(option.name, getattr(config, option.name), type(option.default))
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            raise ValueError(f"{name} {value!r}: choose one of {', '.join(choices)}")
    for words, holds, names in _RANGES:
        for name in names:
            value = getattr(config, name)
            if not (math.isfinite(value) and holds(value)):
                raise ValueError(f"{name} {value!r}: must be {words}")
    if not config.splits:
        raise ValueError("splits (): name at least one folder of the data to train on")
    for name in ("resolution", "crop"):
        sides = getattr(config, name)
        if len(sides) != 2 or not all(isinstance(side, int) and 16 <= side <= 8192 for side in sides):
            raise ValueError(f"{name} {sides!r}: expected width and height, each 16 to 8192 pixels")
    if any(side % config.loss_stride for side in config.crop):
        raise ValueError(
            f"crop {config.crop!r}: both sides must be multiples of the loss_stride {config.loss_stride}"
        )


def _check_type(name: str, value: Any, expected: type) -> None:
    # A whole number is a float too, but true is no number.
    allowed = (int, float) if expected is float else (expected,)
    if expected in (int, float, tuple) and (isinstance(value, bool) or not isinstance(value, allowed)):
        kind = {int: "a whole number", float: "a number", tuple: "a tuple"}[expected]
        raise ValueError(f"{name} {value!r}: expected {kind}")
