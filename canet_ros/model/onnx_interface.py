# SPDX-License-Identifier: Apache-2.0
"""How an imported ONNX network takes images and gives classes: entries of model.yaml with ``network: onnx``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canet_ros.names import CHANNEL_ORDERS, LAYOUTS, ONNX_OUTPUTS

Triple = tuple[float, float, float]

# Names of what a deployment graph takes and gives
INPUT = "images"
OUTPUTS = ("mask", "confidence")
OPSET = 17  # of the graphs of our own networks


@dataclass(frozen=True)
class OnnxInterface:
    """What lies between pixels and the graph of ``model.onnx``, and between that and classes.

    Attributes:
        input, output: names of the graph's tensors.
        input_layout: NCHW or NHWC.
        color: order of the input's channels, rgb or bgr.
        scale, mean, std: a channel takes (scale * pixel - mean) / std, pixels being 0..255; mean and std stand in the
            order of the network's channels.
        free_size: whether the network takes any size, or the model's resolution alone.
        free_batch: whether it takes several images at once.
        gives: ``logits``, ``probabilities`` or class ``ids``.
        output_layout: NCHW or NHWC; of no meaning for ids.
    """

    input: str
    output: str
    input_layout: str
    color: str
    scale: float
    mean: Triple
    std: Triple
    free_size: bool
    free_batch: bool
    gives: str
    output_layout: str = "NCHW"

    def __post_init__(self) -> None:
        require_choice("input: layout", self.input_layout, LAYOUTS)
        require_choice("input: color", self.color, CHANNEL_ORDERS)
        require_choice("output: gives", self.gives, ONNX_OUTPUTS)
        require_choice("output: layout", self.output_layout, LAYOUTS)
        if not all(map(math.isfinite, (self.scale, *self.mean, *self.std))) or self.scale == 0:
            raise ValueError("input: scale, mean and std must be numbers, and scale not 0")
        if min(self.std) <= 0:
            raise ValueError("input: std must be above 0: channels are divided by it")

    @property
    def yaml(self) -> dict[str, Any]:
        """The entries ``input`` and ``output`` of model.yaml."""
        return {
            "input": {
                "name": self.input,
                "layout": self.input_layout,
                "color": self.color,
                "scale": self.scale,
                "mean": list(self.mean),
                "std": list(self.std),
                "size": "free" if self.free_size else "fixed",
                "batch": "free" if self.free_batch else "fixed",
            },
            "output": {"name": self.output, "gives": self.gives, "layout": self.output_layout},
        }


def parse_onnx_interface(raw: Mapping[str, Any]) -> OnnxInterface:
    """The inverse of ``OnnxInterface.yaml``, from the whole of model.yaml.

    Raises:
        KeyError, TypeError, ValueError: an entry is missing or is not what it should be.
    """
    taken, given = raw["input"], raw["output"]
    for side in ("size", "batch"):
        require_choice(f"input: {side}", taken.get(side, "fixed"), ("fixed", "free"))
    return OnnxInterface(
        input=str(taken["name"]),
        output=str(given["name"]),
        input_layout=str(taken["layout"]),
        color=str(taken["color"]),
        scale=float(taken["scale"]),
        mean=floats("mean", taken["mean"]),
        std=floats("std", taken["std"]),
        free_size=taken.get("size") == "free",
        free_batch=taken.get("batch") == "free",
        gives=str(given["gives"]),
        output_layout=str(given.get("layout", "NCHW")),
    )


def require_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{what} {value!r}: choose one of {', '.join(choices)}")


def floats(what: str, values: Any, count: int = 3, expected: str = "three numbers") -> Any:
    """A tuple of exactly ``count`` numbers; raises ValueError."""
    try:
        numbers = tuple(float(value) for value in values)
        if len(numbers) == count:
            return numbers
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{what}: expected {expected}, got {(values[0] if count == 1 else values)!r}")


def words(shape: Sequence[int | None]) -> str:
    """A shape for people: (?, 3, 480, 360)."""
    return f"({', '.join(str(side or '?') for side in shape)})"
