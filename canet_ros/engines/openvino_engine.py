# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on CPUs."""

from __future__ import annotations

import hashlib
import io
import queue
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from canet_ros.engines import EngineRequest, cpu_multiplies_int8
from canet_ros.engines.engine import warm_up
from canet_ros.errors import EngineError
from canet_ros.model import cache
from canet_ros.model.deployment import deployment_graph, derived_name, quantized_graph
from canet_ros.model.int8_scales import has_scales
from canet_ros.model.openvino_core import CORE

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """The exported graph, compiled for this machine; the compiled form is kept in the cache.

    Images run one after the other: on a CPU a batch is no faster than its images in turn, and takes their memory
    together. Pixels are read from the caller's array and results written into the caller's arrays, without a copy.
    """

    name = "openvino"
    device = "cpu"
    streams = 1

    def __init__(self, request: EngineRequest) -> None:
        best_float = "bf16" if "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"
        self.precision, self.reason = _precision(request, best_float)
        # int8 layers stay int8; the precision here is for the layers that calibration left alone.
        rest = best_float if self.precision == "int8" else self.precision
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[rest]}
        if request.streams:
            self.streams = request.streams
            # Threads that are not bound to cores give way to those that decode and encode.
            hints |= {
                "NUM_STREAMS": self.streams,
                "INFERENCE_NUM_THREADS": self.streams,
                "ENABLE_CPU_PINNING": False,
            }
        fingerprint = f"{openvino.get_version()} {CORE.get_property('CPU', 'FULL_DEVICE_NAME')} {hints}"
        quantized = quantized_graph(request.folder, request.resolution) if self.precision == "int8" else None
        if quantized:
            fingerprint += cache.checksum(quantized)
        suffix = f"{self.precision}-openvino-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}.blob"

        def compile_graph() -> Any:
            graph = deployment_graph(request.folder, request.resolution, self.name, self.precision)
            model = CORE.read_model(graph)
            width, height = request.resolution
            if quantized:
                round_in_one_operation(model)
            model.reshape([1, height, width, 3])
            if not quantized and any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
                # A network that came quantised: of signed 8-bit activations OpenVINO's own int8 makes other masks.
                return CORE.compile_model(model, "CPU", {**hints, "LP_TRANSFORMS_MODE": False})
            return CORE.compile_model(model, "CPU", hints)

        def write_compiled(path: Path) -> None:
            stream = io.BytesIO()  # without one, OpenVINO 2024 gives bytes, newer ones a stream
            compile_graph().export_model(stream)
            path.write_bytes(stream.getvalue())

        try:
            blob = cache.derived_file(
                derived_name(request.folder, request.resolution, suffix), write_compiled
            )
        except (OSError, RuntimeError):  # no place for it, or a compiled form that cannot be exported
            compiled = compile_graph()
        else:
            try:
                compiled = CORE.import_model(blob.read_bytes(), "CPU", hints)
            except RuntimeError:  # of a machine with another processor of the same name
                cache.forget_derived_file(blob)
                compiled = compile_graph()
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.streams):
            self._free.put(compiled.create_infer_request())
        self.most_at_once, self.fallback_reasons = warm_up(self.run, request.resolution, 1)

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        images = np.ascontiguousarray(images)
        masks = np.empty(images.shape[:3], np.uint8)
        confidences = np.empty_like(masks)
        inference = self._free.get()
        try:
            for i in range(len(images)):
                inference.set_input_tensor(openvino.Tensor(images[i : i + 1], shared_memory=True))
                inference.set_output_tensor(0, openvino.Tensor(masks[i : i + 1], shared_memory=True))
                inference.set_output_tensor(1, openvino.Tensor(confidences[i : i + 1], shared_memory=True))
                inference.infer()
        finally:
            self._free.put(inference)
        return masks, confidences


def _precision(request: EngineRequest, best_float: str) -> tuple[str, str]:
    wanted = request.precision
    version = ".".join(openvino.get_version().split("-")[0].split(".")[:2])
    if wanted == "auto":
        why = f"OpenVINO {version}: fastest on this CPU"
        if cpu_multiplies_int8() and has_scales(request.folder):
            try:
                quantized_graph(request.folder, request.resolution)
                return "int8", f"{why}, with the model's own scales"
            except EngineError as error:
                why += f" except int8 ({error})"
        return best_float, f"{why}, which {'has no bf16' if best_float == 'fp32' else 'computes in bf16'}"
    if wanted == "bf16" and best_float != "bf16":
        raise EngineError("precision bf16: this CPU has none; use fp32, or int8 after a calibration")
    return wanted, f"OpenVINO {version}, precision as asked"


def round_in_one_operation(model: Any) -> None:
    """In OpenVINO's graph make one of each rounding to 8-bit numbers and the scale behind it: the same activations.

    OpenVINO (2024.4, 2026.4) rounds the scale to tenths, 0.06 to 0.1 and 0.04 to 0, where the two stand apart beside
    a concatenation and the processor has no AMX.
    """
    opset = openvino.opset13 if hasattr(openvino, "opset13") else openvino.runtime.opset13  # OpenVINO 2024

    def readers(node: Any, kind: str) -> list[Any]:
        found = [reader.get_node() for reader in node.output(0).get_target_inputs()]
        return [reader for reader in found if reader.get_type_name() == kind]

    def constant(node: Any, place: int) -> NDArray[np.float32]:
        maker = node.input_value(place).get_node()
        shape = maker.get_output_shape(0)
        while maker.get_type_name() in ("Convert", "Reshape"):
            maker = maker.input_value(0).get_node()
        return np.asarray(maker.get_data(), np.float32).reshape(shape)

    for rounding in (node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"):
        to_8_bit = readers(rounding, "Convert")
        for to_float in (reader for numbers in to_8_bit for reader in readers(numbers, "Convert")):
            behind_zero = readers(to_float, "Subtract")
            if any(constant(subtraction, 1).any() for subtraction in behind_zero):
                continue
            for scaled in readers(behind_zero[0] if behind_zero else to_float, "Multiply"):
                bounds = [opset.constant(constant(rounding, place) * constant(scaled, 1)) for place in (3, 4)]
                inputs = [rounding.input_value(place) for place in range(3)]
                one = opset.fake_quantize(*inputs, *bounds, rounding.get_attributes()["levels"])
                for reader in scaled.output(0).get_target_inputs():
                    reader.replace_source_output(one.output(0))
