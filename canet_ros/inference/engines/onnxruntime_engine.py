# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: on a CPU, on CUDA, and with TensorRT on a desktop GPU or a Jetson."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from canet_ros.hints import see_docs
from canet_ros.inference import cache, progress
from canet_ros.inference.engines import EngineError, EngineRequest
from canet_ros.inference.export import INPUT, OUTPUTS, derived_name, exported_graph
from canet_ros.inference.quantization import quantized_graph

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


class OnnxRuntimeEngine:
    """The exported graph in an ONNX Runtime session; devices differ in the list of execution providers alone.

    TensorRT builds its engine at the first start, which takes minutes, and keeps it in the cache;
    ``canet export --engine onnxruntime --provider tensorrt`` does so ahead of a drive.
    """

    name = "onnxruntime"

    def __init__(self, request: EngineRequest) -> None:
        kinds = _provider_kinds(request.device)
        index = int(request.device.partition(":")[2] or 0)
        self.device = "cpu" if kinds == ["cpu"] else f"cuda:{index}"
        self.precision = _precision(request.precision, kinds)
        if self.precision == "int8":
            graph = quantized_graph(request.folder, request.resolution)
        else:
            graph = exported_graph(request.folder, request.resolution, self.precision)
        options = onnxruntime.SessionOptions()
        # Threads that spin between two frames take the cores from image conversion and DDS.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers = [_provider(kind, request, self.precision, index) for kind in kinds]
        width, height = request.resolution
        with _tensorrt_build(request) if "tensorrt" in kinds else nullcontext():
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
            for batch in range(1, request.max_batch + 1 if kinds != ["cpu"] else 2):
                self.run(np.zeros((batch, height, width, 3), np.uint8))
        in_use = ", ".join(self._session.get_providers())
        self.reason = f"ONNX Runtime {onnxruntime.__version__} with {in_use}"

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        mask, confidence = self._session.run(list(OUTPUTS), {INPUT: images})
        return mask, confidence


def available_providers() -> list[str]:
    """Which of ``PROVIDERS`` this ONNX Runtime is built with, best first."""
    return [kind for kind, name in PROVIDERS.items() if name in onnxruntime.get_available_providers()]


def _provider_kinds(device: str) -> list[str]:
    """Execution providers to try for a device, best first."""
    on_gpu = [kind for kind in available_providers() if kind != "cpu"]
    if device == "cpu" or (device == "auto" and not on_gpu):
        return ["cpu"]
    if device != "auto" and device.partition(":")[0] != "cuda":
        raise EngineError(f"device {device!r}: ONNX Runtime runs on cpu, cuda or cuda:N")
    if not on_gpu:
        raise EngineError(
            f"device {device!r}: this ONNX Runtime ({onnxruntime.__version__}) has neither CUDA nor TensorRT; "
            f"install onnxruntime-gpu (Jetson: {see_docs('jetson.md')}), or use device cpu"
        )
    return [*on_gpu, "cpu"]


def _provider(kind: str, request: EngineRequest, precision: str, index: int) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = {}
    if kind == "cuda":
        options = {"device_id": index}
    elif kind == "tensorrt":
        folder = _tensorrt_folder(request)
        folder.mkdir(parents=True, exist_ok=True)
        width, height = request.resolution
        shape = f"{height}x{width}x3"
        options = {
            "device_id": index,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(folder),
            "trt_fp16_enable": precision != "fp32",
            "trt_int8_enable": precision == "int8",
            "trt_profile_min_shapes": f"{INPUT}:1x{shape}",
            "trt_profile_opt_shapes": f"{INPUT}:1x{shape}",
            "trt_profile_max_shapes": f"{INPUT}:{request.max_batch}x{shape}",
        }
    return PROVIDERS[kind], options


@contextmanager
def _tensorrt_build(request: EngineRequest) -> Iterator[None]:
    """Only ONNX Runtime knows whether its cache spares the minutes."""
    with cache.locked(_tensorrt_folder(request)), progress.doing(progress.BUILDING):
        yield


def _tensorrt_folder(request: EngineRequest) -> Path:
    return cache.cache_folder() / derived_name(request.folder, request.resolution, "tensorrt")


def _precision(wanted: str, kinds: list[str]) -> str:
    if wanted == "auto":
        return "fp32" if kinds == ["cpu"] else "fp16"
    if wanted == "bf16":
        raise EngineError("precision bf16: the onnxruntime engine has none; use fp32, fp16 (GPU) or int8")
    if wanted == "fp16" and kinds == ["cpu"]:
        raise EngineError("precision fp16: slow on a CPU; use fp32 or int8 there")
    return wanted
