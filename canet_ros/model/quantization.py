# SPDX-License-Identifier: Apache-2.0
"""int8 by post-training quantisation: one graph for OpenVINO, ONNX Runtime and TensorRT."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.errors import EngineError
from canet_ros.hints import canet_command, pip_install
from canet_ros.model import cache
from canet_ros.model.export import INPUT, derived_name, exported_graph
from canet_ros.model.int8_scales import (
    Scales,
    ScalesError,
    apply_scales,
    checksum,
    extract_scales,
    load_scales,
    save_scales,
)
from canet_ros.model.model_folder import Resolution

# Upsampling and argmax; and MobileNetV2's first blocks, whose depthwise weights span the widest ranges: in int8 they
# cost 0.1 to 0.2 points of mIoU and save a twentieth of the time.
_KEPT_IN_FLOAT = (r"/classes/.*", r"/context_branch/backbone/features\.[012]/.*")


def quantized_graph(folder: Path, resolution: Resolution) -> Path:
    """The model's int8 graph as ONNX, in the cache: of the user's own ``calibrate``, else of the model's scales.

    Raises:
        EngineError: there are neither; the message says how to make them.
        ModelError: the model is broken.
    """
    if (path := cache.derived_file_there(derived_name(folder, resolution, "int8.onnx"))) is not None:
        return path
    try:
        scales = load_scales(folder)
        if scales is not None:
            return _graph_by_scales(folder, resolution, scales)
    except ScalesError as error:
        raise EngineError(f"precision int8: {error}") from error
    width, height = resolution
    command = canet_command(
        f"export --model {folder} --resolution {width}x{height} --calibrate FOLDER_OF_IMAGES"
    )
    raise EngineError(
        f"precision int8: model {folder.name} is not calibrated at {width}x{height}; run: {command}"
    )


def _graph_by_scales(folder: Path, resolution: Resolution, scales: Scales) -> Path:
    import onnx

    def quantize(path: Path) -> None:
        onnx.save(apply_scales(onnx.load(exported_graph(folder, resolution)), scales), path)

    return cache.derived_file(derived_name(folder, resolution, f"int8-{checksum(folder)[:8]}.onnx"), quantize)


def keep_scales(folder: Path, resolution: Resolution) -> Path:
    """Write the scales of the last ``calibrate`` into the model's folder: int8 for everyone, at any resolution.

    Raises:
        EngineError: it is not calibrated at this resolution.
        ScalesError, OSError: as ``int8_scales``.
    """
    import onnx

    quantized = cache.cache_folder() / derived_name(folder, resolution, "int8.onnx")
    if not cache.is_complete(quantized):
        raise EngineError(f"model {folder.name} is not calibrated at {resolution[0]}x{resolution[1]}")
    return save_scales(
        folder, extract_scales(onnx.load(exported_graph(folder, resolution)), onnx.load(quantized))
    )


def calibrate(folder: Path, resolution: Resolution, images: Sequence[NDArray[np.uint8]]) -> Path:
    """Quantise a model; what an earlier calibration left is replaced.

    Scales of weights (per channel) and activations are symmetric and come from the images; NNCF then corrects the
    biases. What is left in float runs in the engine's own best precision.

    Args:
        images: (h, w, 3) BGR at ``resolution``, a few dozen, as different as those that the model will see.

    Raises:
        ValueError: there are no images.
        ModuleNotFoundError: the package nncf is missing.
        ModelError: the model is broken.
    """
    if not images:
        raise ValueError("calibration takes at least one image")
    if importlib.util.find_spec("nncf") is None:
        raise ModuleNotFoundError(f"calibration takes the package nncf: {pip_install('nncf', 'onnx')}")
    import nncf
    import onnx

    def quantize(path: Path) -> None:
        quantized = nncf.quantize(
            onnx.load(exported_graph(folder, resolution)),
            nncf.Dataset(images, lambda image: {INPUT: image[None]}),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(patterns=list(_KEPT_IN_FLOAT), validate=False),
        )
        onnx.save(quantized, path)

    return cache.derived_file(derived_name(folder, resolution, "int8.onnx"), quantize, anew=True)


def round_in_one_operation(model: Any) -> None:
    """In OpenVINO's graph make one of each rounding to 8-bit numbers and the scale behind it: the same activations.

    OpenVINO (2024.4, 2026.4) rounds the scale to tenths, 0.06 to 0.1 and 0.04 to 0, where the two stand apart beside
    a concatenation and the processor has no AMX.
    """
    import openvino

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
