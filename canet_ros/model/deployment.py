# SPDX-License-Identifier: Apache-2.0
"""The deployment graph of a model, made for a target: what an engine reads and what ``canet export`` writes."""

from __future__ import annotations

from pathlib import Path

from canet_ros.errors import EngineError
from canet_ros.model import cache
from canet_ros.model.export import derived_name, exported_graph
from canet_ros.model.model_folder import Resolution
from canet_ros.model.quantization import quantized_graph
from canet_ros.names import ENGINE_PRECISIONS

# Engines that read the graph, and their precisions.
TARGETS = {engine: precisions for engine, precisions in ENGINE_PRECISIONS.items() if engine != "torch"}


def deployment_graph(folder: Path, resolution: Resolution, target: str, precision: str) -> Path:
    """The model's graph as ONNX in the dialect of a target (see ``dialects``), in the cache; the batch is free.

    (B, h, w, 3) uint8 BGR images in, class ids and confidence out, (B, h, w) uint8 each.

    Raises:
        EngineError: the target does not take the precision, or the model is not calibrated for int8.
        ModelError: the model is broken.
        ModuleNotFoundError: the package ``onnx`` is missing.
    """
    if precision not in TARGETS[target]:
        raise EngineError(
            f"precision {precision}: the graph for {target} has none; use {', '.join(TARGETS[target])}"
        )
    if precision == "int8":
        plain = quantized_graph(folder, resolution)
    else:
        plain = exported_graph(folder, resolution, precision)
    in_half = precision == "fp16" or (precision == "int8" and target == "tensorrt")
    if target == "openvino" or not (in_half or target == "tensorrt"):
        return plain

    def write(path: Path) -> None:
        import onnx

        from canet_ros.model.dialects import for_tensorrt, half

        model = onnx.load(plain)
        if target == "tensorrt":
            model = for_tensorrt(model)
        onnx.save(half(model) if in_half else model, path)

    suffix = f"{precision}-{target}"
    if precision == "int8":
        suffix += f"-{cache.checksum(plain)[:8]}"
    return cache.derived_file(derived_name(folder, resolution, f"{suffix}.onnx"), write)
