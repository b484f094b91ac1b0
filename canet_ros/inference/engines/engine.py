# SPDX-License-Identifier: Apache-2.0
"""What an engine is, and what a user may ask of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from canet_ros.inference.model_folder import Resolution


class EngineError(RuntimeError):
    """An engine, device or precision that was asked for cannot be had; the message says why and what can."""


@dataclass(frozen=True)
class EngineRequest:
    """What a user asks for; ``auto`` leaves a choice to the engine.

    Attributes:
        folder: the model's folder.
        resolution: (width, height) of the network's input.
        engine, device, precision: as the node's parameters of the same names.
        max_batch: pictures per call that a GPU prepares for; more are possible and slow the first time.
    """

    folder: Path
    resolution: Resolution
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    max_batch: int = 1


class Engine(Protocol):
    """A model on a device, warmed up and ready.

    Attributes:
        name: one of ``names.ENGINES``.
        device: where it runs: ``cpu``, ``cuda:0``.
        precision: one of ``names.PRECISIONS``.
        reason: why this engine and precision, in words for ``canet doctor`` and the diagnostics.
    """

    name: str
    device: str
    precision: str
    reason: str

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class ids and confidence, (B, h, w) uint8 each, of BGR pictures (B, h, w, 3) at the network's resolution."""
        ...
