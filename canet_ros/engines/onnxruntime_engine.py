# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on a CPU and on CUDA; TensorRT has an engine of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from canet_ros.engines import EngineRequest
from canet_ros.engines.engine import warm_up
from canet_ros.errors import EngineError, in_one_line
from canet_ros.formats import engine_conflict
from canet_ros.model.deployment import deployment_graph
from canet_ros.model.model_folder import ModelError
from canet_ros.model.onnx_interface import INPUT, OUTPUTS

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_VERSION = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


class OnnxRuntimeEngine:
    """The deployment graph in an ONNX Runtime session; devices differ in the list of execution providers alone.

    On CUDA, inputs and outputs of every number of images stay bound to the same memory of the device. No CUDA graph is
    recorded: ONNX Runtime does so only if all nodes run on the device, and those that compute shapes run on the CPU.
    """

    name = "onnxruntime"

    def __init__(self, request: EngineRequest) -> None:
        self.fallback_reasons: tuple[str, ...] = ()
        self._bindings: dict[int, tuple[Any, dict[str, Any]]] = {}
        has_cuda = _CUDA in onnxruntime.get_available_providers()
        kind, _, number = request.device.partition(":")
        if kind == "cuda" and not has_cuda:
            raise EngineError(
                f"device {request.device!r}: this ONNX Runtime ({onnxruntime.__version__}) has no CUDA; "
                "install onnxruntime-gpu, or use engine tensorrt or device cpu"
            )
        if has_cuda and kind != "cpu":
            try:
                self._start(request, f"cuda:{number or 0}")
                return
            except ModelError:
                raise
            except Exception as error:  # a driver can throw anything; the CPU is left
                if kind == "cuda":
                    raise
                self.fallback_reasons = (f"not onnxruntime on a GPU: {in_one_line(error)}",)
        self._start(request, "cpu")

    def _start(self, request: EngineRequest, device: str) -> None:
        self.device = device
        self.precision = request.precision
        if request.precision == "auto":
            self.precision = "fp32" if device == "cpu" else "fp16"
        elif conflict := engine_conflict(self.name, device, request.precision):
            raise EngineError(conflict)
        graph = deployment_graph(request.folder, request.resolution, self.name, self.precision)
        options = onnxruntime.SessionOptions()
        # Threads that spin between two frames take the cores from image conversion and DDS.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers: list[tuple[str, dict[str, Any]]] = [(_CPU, {})]
        if device != "cpu":
            # Tensor cores take channels last, and convolutions then need not convert. Older versions lack the option.
            nhwc = {"prefer_nhwc": "1"} if _VERSION >= (1, 20) else {}
            providers.insert(0, (_CUDA, {"device_id": int(device.partition(":")[2]), **nhwc}))
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
        # A provider that does not load is left out without an exception, and what fails later moves to the CPU.
        if hasattr(self._session, "disable_fallback"):
            self._session.disable_fallback()
        in_use = self._session.get_providers()
        if device != "cpu" and _CUDA not in in_use:
            raise EngineError(
                f"device {request.device!r}: ONNX Runtime {onnxruntime.__version__} cannot start {_CUDA} and would run "
                "on the CPU; its own error is in the log above"
            )
        self._one_by_one = self._session.get_inputs()[0].shape[0] == 1
        largest = request.max_batch if device != "cpu" else 1
        self.most_at_once, remarks = warm_up(self.run, request.resolution, largest)
        self.fallback_reasons += remarks
        self.reason = f"ONNX Runtime {onnxruntime.__version__} with {', '.join(in_use)}"

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if self._one_by_one and len(images) > 1:
            masks, confidences = zip(*(self.run(images[i : i + 1]) for i in range(len(images))))
            return np.concatenate(masks), np.concatenate(confidences)
        if self.device != "cpu":
            return self._run_bound(images)
        mask, confidence = self._session.run(list(OUTPUTS), {INPUT: images})
        return mask, confidence

    def _run_bound(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if len(images) not in self._bindings:
            self._bindings[len(images)] = self._bind(images.shape)
        binding, values = self._bindings[len(images)]
        values[INPUT].update_inplace(np.ascontiguousarray(images))
        self._session.run_with_iobinding(binding)
        mask, confidence = (values[name].numpy() for name in OUTPUTS)
        return mask, confidence

    def _bind(self, shape: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
        """A binding of memory on the device for images (B, h, w, 3), and that memory by name."""
        kind, _, index = self.device.partition(":")
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                shape if name == INPUT else shape[:3], np.uint8, kind, int(index or 0)
            )
            for name in (INPUT, *OUTPUTS)
        }
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT, values[INPUT])
        for name in OUTPUTS:
            binding.bind_ortvalue_output(name, values[name])
        return binding, values
