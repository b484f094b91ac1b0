# SPDX-License-Identifier: Apache-2.0
"""Engines run the graph of ``pixels_to_classes`` on a device; one file each, all behind ``Engine``."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from canet_ros.inference.model_folder import Resolution

ENGINES = ("torch", "openvino", "onnxruntime")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_CLASSES = {"torch": "TorchEngine", "openvino": "OpenVinoEngine", "onnxruntime": "OnnxRuntimeEngine"}


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
    if request.precision == "int8":
        from canet_ros.inference.quantization import quantized_graph

        quantized_graph(request.folder, request.resolution)  # raises where the model was not calibrated
    if request.engine != "auto":
        return _build(request)
    refusals = []
    for candidate in _fastest_first(request):
        try:
            engine = _build(candidate)
        except EngineError as error:
            refusals.append(f"not {candidate.engine} on {candidate.device}: {error}")
        else:
            engine.reason = "; ".join((engine.reason, *refusals))
            return engine
    raise EngineError(
        f"nothing here runs device {request.device}, precision {request.precision}: " + "; ".join(refusals)
    )


def _fastest_first(request: EngineRequest) -> list[EngineRequest]:
    on_gpu = [("torch", "cuda"), ("onnxruntime", "cuda")]
    on_cpu = [("openvino", "cpu"), ("torch", "cpu"), ("onnxruntime", "cpu")]
    if not cpu_has_bf16():
        on_cpu[1:] = reversed(on_cpu[1:])  # in fp32, ONNX Runtime is ahead of PyTorch
    if request.device == "auto":
        choices = (on_gpu if _has_cuda_gpu() else []) + on_cpu
    elif request.device == "cpu":
        choices = on_cpu
    else:
        choices = [(name, request.device) for name, _ in on_gpu]
    return [replace(request, engine=name, device=device) for name, device in choices]


def _build(request: EngineRequest) -> Engine:
    name = request.engine
    if importlib.util.find_spec(name) is None:
        raise EngineError(f"the package {name} is missing: pip install 'canet_ros[{name}]'")
    module = importlib.import_module(f"canet_ros.inference.engines.{name}_engine")
    engine: Engine = getattr(module, _CLASSES[name])(request)
    return engine


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX-512 BF16, AMX, or Arm's)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _has_cuda_gpu() -> bool:
    """Asked of the driver: importing torch to learn it would cost a second and 200 MB."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
