# SPDX-License-Identifier: Apache-2.0
"""Engines run the graph of ``pixels_to_classes`` on a device; one file each, all behind ``Engine``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from canet_ros.inference.model_folder import Resolution

ENGINES = ("torch",)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class EngineError(RuntimeError):
    """An engine, device or precision that was asked for cannot be had; the message says why and what can."""


@dataclass(frozen=True)
class EngineRequest:
    """What a user asks for; ``auto`` leaves a choice to the engine.

    Attributes:
        folder: the model's folder.
        resolution: (width, height) of the network's input.
        engine, device, precision: as the node's parameters of the same names.
    """

    folder: Path
    resolution: Resolution
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"


class Engine(Protocol):
    """A model on a device, warmed up and ready.

    Attributes:
        name: one of ``ENGINES``.
        device: where it runs: ``cpu``, ``cuda:0``.
        precision: one of ``PRECISIONS``.
        reason: why this engine and precision, in words for ``canet doctor`` and the diagnostics.
    """

    name: str
    device: str
    precision: str
    reason: str

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class ids and confidence, (B, h, w) uint8 each, of BGR pictures (B, h, w, 3) at the network's resolution."""
        ...


def create_engine(request: EngineRequest) -> Engine:
    """The engine that was asked for, or for ``auto`` the fastest that this machine has.

    Raises:
        EngineError: it cannot be had here.
        ModelError: the model is broken.
    """
    if request.engine not in ("auto", *ENGINES):
        raise EngineError(f"unknown engine {request.engine!r}: choose auto or one of {', '.join(ENGINES)}")
    if request.precision not in ("auto", *PRECISIONS):
        raise EngineError(
            f"unknown precision {request.precision!r}: choose auto or one of {', '.join(PRECISIONS)}"
        )
    from canet_ros.inference.engines.torch_engine import TorchEngine

    return TorchEngine(request)
