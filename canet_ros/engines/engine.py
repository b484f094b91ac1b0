# SPDX-License-Identifier: Apache-2.0
"""The engine protocol, and the request for an engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from canet_ros.errors import EngineError, in_one_line
from canet_ros.model.model_folder import Resolution

UNLIMITED = 2**31
Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@dataclass(frozen=True)
class EngineRequest:
    """A requested engine; ``auto`` leaves a choice to the engine.

    Attributes:
        folder: the model's folder.
        resolution: (width, height) of the network's input.
        engine, device, precision: as the node's parameters of the same names.
        max_batch: images per call that a GPU prepares for; more are possible, and slow the first time.
        streams: concurrent calls, for throughput: an engine on a CPU may give each a core of its own. 0: one call at a
            time, on all cores, for latency.
        prebuilt_only: refuse TensorRT where no plan has been built; set by $CANET_ROS_TENSORRT=prebuilt.
    """

    folder: Path
    resolution: Resolution
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    max_batch: int = 1
    streams: int = 0
    prebuilt_only: bool = field(default_factory=lambda: os.environ.get("CANET_ROS_TENSORRT") == "prebuilt")


class Engine(Protocol):
    """A model on a device, warmed up and ready.

    Attributes:
        name: one of ``names.ENGINES``.
        device: where it runs: ``cpu``, ``cuda:0``.
        precision: one of ``names.PRECISIONS``.
        reason: why this engine and precision, in words for ``canet doctor`` and the diagnostics.
        fallback_reasons: a sentence for each thing that was tried first and did not start: faster engines, int8, a
            cache. ``create_engine`` sets it; an engine that has such a thing of its own sets it before.
        most_at_once: how many images fit into the device's memory; ``create_engine`` sets it unless the engine did.
        streams: how many threads may be in ``run`` at once, to its advantage; ``create_engine`` sets 1 unless the
            engine did.
    """

    name: str
    device: str
    precision: str
    reason: str
    fallback_reasons: tuple[str, ...]
    most_at_once: int
    streams: int

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class ids and confidence, (B, h, w) uint8 each, of BGR images (B, h, w, 3) at the network's resolution."""
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory, by the messages of PyTorch, CUDA, ONNX Runtime and Python."""
    text = f"{type(error).__name__} {error}".lower()
    words = ("outofmemory", "out of memory", "out_of_memory", "failed to allocate", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in text for word in words)


def warm_up(run: Run, resolution: Resolution, max_batch: int) -> tuple[int, tuple[str, ...]]:
    """Run an engine with every batch size up to ``max_batch``, as far as the device's memory allows.

    Returns:
        The largest batch size, and a fallback reason if it is smaller than requested.

    Raises:
        EngineError: not even one image fits, or the engine returns invalid results.
    """
    width, height = resolution
    for batch in range(1, max_batch + 1):
        images = np.zeros((batch, height, width, 3), np.uint8)
        try:
            require_result(run(images), images)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if batch == 1:
                raise EngineError(f"out of memory at {width}x{height}: {in_one_line(error)}") from error
            return batch - 1, (f"not {max_batch} images at once, but {batch - 1}: {in_one_line(error)}",)
    return UNLIMITED, ()


def require_result(result: Any, images: NDArray[np.uint8]) -> None:
    """Check that a result can be class ids and confidence of images (B, h, w, 3).

    Raises:
        EngineError: a plane of another type or shape, or a confidence of 0: the most probable class has at least 1/255,
            and NaN comes out as 0.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise EngineError(f"returned {type(result).__name__}, expected mask and confidence")
    for what, planes in zip(("mask", "confidence"), result):
        kind, shape = getattr(planes, "dtype", type(planes).__name__), np.shape(planes)
        if not isinstance(planes, np.ndarray) or kind != np.uint8 or shape != images.shape[:3]:
            raise EngineError(
                f"returned a {what} of {kind} {shape} where uint8 {images.shape[:3]} was expected"
            )
    if not result[1].all():
        raise EngineError("returned NaN: a confidence is 0")
