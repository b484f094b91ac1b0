# SPDX-License-Identifier: Apache-2.0
"""Scales for int8 in the model's folder: small, made once per release, for any resolution.

``int8.safetensors`` holds the scales of weights and activations and the corrected biases that calibration found, each
under the name of the node of the exported graph that uses it. Nodes are named after the network's modules, at any
resolution, so the quantised graph is made from weights and scales, without images or NNCF.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from canet_ros.files import atomic_write, sha256
from canet_ros.model.model_folder import INT8_FILE, weights_file

if TYPE_CHECKING:  # onnx belongs to an extra
    import onnx

# Quantisation is symmetric, so a scale (one, or one per channel) is sufficient.
SIGNED, UNSIGNED, WEIGHT, BIAS = "int8", "uint8", "weight", "bias"

Scales = dict[str, NDArray[np.float32]]


class ScalesError(ValueError):
    """Scales that do not fit a graph or a model; the message gives the reason."""


def extract_scales(plain: onnx.ModelProto, quantized: onnx.ModelProto) -> Scales:
    """What a quantised graph has that the plain one has not, by ``<kind>|<node>|<input>``.

    Raises:
        ScalesError: the quantised graph is not the plain one with QuantizeLinear and DequantizeLinear in between.
    """
    from canet_ros.model.onnx_graph import constants_of

    values = constants_of(quantized.graph)
    makers = {output: node for node in quantized.graph.node for output in node.output}
    nodes = {node.name: node for node in quantized.graph.node}
    plain_values = constants_of(plain.graph)
    scales: Scales = {}
    for node in plain.graph.node:
        twin = nodes.get(node.name)
        # A Shape reads no numbers.
        if twin is None or len(twin.input) != len(node.input) or node.op_type == "Shape":
            continue
        for place, (before, after) in enumerate(zip(node.input, twin.input)):
            dequantize = makers.get(after)
            key = f"{node.name}|{place}"
            if dequantize is not None and dequantize.op_type == "DequantizeLinear":
                stored, scale, zero = dequantize.input
                if stored in values:
                    scales[f"{WEIGHT}|{key}"] = values[scale].reshape(-1).astype(np.float32)
                else:
                    source = makers[stored].input[0]
                    if source != before:
                        raise ScalesError(f"{node.name} reads {source} where the plain graph reads {before}")
                    if values[zero].any():
                        raise ScalesError(f"{node.name} is not quantised symmetrically")
                    kind = SIGNED if values[zero].dtype == np.int8 else UNSIGNED
                    scales[f"{kind}|{key}"] = values[scale].reshape(-1).astype(np.float32)
            elif (
                before in plain_values
                and after in values
                and not np.array_equal(plain_values[before], values[after])
            ):
                scales[f"{BIAS}|{key}"] = values[after].astype(np.float32)
    if not scales:
        raise ScalesError("the graph is not quantised")
    return scales


def apply_scales(plain: onnx.ModelProto, scales: Scales) -> onnx.ModelProto:
    """The quantised graph: weights in int8, every activation with a scale rounded to 8 bits where it is used.

    Raises:
        ScalesError: a name of the scales is not in the graph.
    """
    from onnx import helper, numpy_helper

    from canet_ros.model.onnx_graph import constants_of, in_order, set_nodes

    graph = plain.graph
    values = constants_of(graph)
    nodes = {node.name: node for node in graph.node}
    added: dict[str, list[onnx.NodeProto]] = {}
    constants: dict[str, NDArray[np.generic]] = {}
    for key, numbers in _behind_concatenations(graph, scales).items():
        kind, name, place_text = key.split("|")
        place = int(place_text)
        if name not in nodes or place >= len(nodes[name].input):
            raise ScalesError(f"the graph has no input {place} of {name}")
        node = nodes[name]
        tensor = node.input[place]
        node.input[place] = out = f"{tensor}|{name}|int8"
        if kind == BIAS:
            constants[out] = numbers.reshape(values[tensor].shape)
        elif kind == WEIGHT:
            added[out], more = _weight(values[tensor], numbers, node.op_type, out)
            constants |= more
        else:
            # Inputs that read the same tensor by the same scales share its rounding.
            node.input[place] = out = f"{tensor}|{kind}|{hashlib.sha256(numbers.tobytes()).hexdigest()[:8]}"
            added[out], more = _activation(tensor, numbers, kind, out)
            constants |= more
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    set_nodes(graph, in_order([*(node for new in added.values() for node in new), *graph.node]))
    return helper.make_model(
        graph, opset_imports=list(plain.opset_import), ir_version=plain.ir_version, producer_name="canet_ros"
    )


def save_scales(folder: Path, scales: Scales) -> Path:
    """Write them into their model's folder; the file.

    Raises:
        OSError: the folder cannot be written.
    """
    with atomic_write(folder / INT8_FILE) as path:
        save_file(scales, path, metadata={"weights": sha256(weights_file(folder))})
    return folder / INT8_FILE


def has_scales(folder: Path) -> bool:
    """Whether a model's folder holds scales, good or not."""
    return (folder / INT8_FILE).is_file()


def load_scales(folder: Path) -> Scales | None:
    """The scales in a model's folder; None if it has none.

    Raises:
        ScalesError: the file is broken, or belongs to other weights.
    """
    if not has_scales(folder):
        return None
    path = folder / INT8_FILE
    try:
        with safe_open(path, framework="numpy") as file:
            of_weights = (file.metadata() or {}).get("weights")
            scales = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ScalesError(f"{path} is not readable ({error})") from error
    if of_weights != sha256(weights_file(folder)):
        raise ScalesError(f"{path} belongs to other weights: it was written before they were trained further")
    for name, numbers in scales.items():
        if name.count("|") != 2 or numbers.dtype != np.float32 or not np.isfinite(numbers).all():
            raise ScalesError(f"{path}: {name} is not a scale")
    return scales


def _behind_concatenations(graph: onnx.GraphProto, scales: Scales) -> Scales:
    """Scales with what a transposed convolution reads rounded after its concatenation, not before: the same numbers.

    Behind a concatenation of rounded inputs OpenVINO computes in float, which takes twice as long.
    """
    makers = {output: node for node in graph.node for output in node.output}
    moved = dict(scales)
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "ConvTranspose" else None
        if maker is None or maker.op_type != "Concat":
            continue
        keys = [f"{SIGNED}|{maker.name}|{place}" for place in range(len(maker.input))]
        numbers = [moved[key] for key in keys if key in moved]
        if len(numbers) == len(keys) and all(np.array_equal(numbers[0], other) for other in numbers):
            for key in keys:
                del moved[key]
            moved[f"{SIGNED}|{node.name}|0"] = numbers[0]
    return moved


def _weight(
    weight: NDArray[np.float32], scale: NDArray[np.float32], op_type: str, out: str
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    from onnx import helper

    # Output channels come first, but for a transposed convolution, and for a matrix that is multiplied from the left.
    axis = 1 if op_type in ("ConvTranspose", "MatMul") else 0
    if scale.size > 1 and scale.size != weight.shape[axis]:
        raise ScalesError(f"{scale.size} scales for a weight of shape {weight.shape}")
    shape = [1] * weight.ndim
    shape[axis] = scale.size
    numbers = np.clip(np.round(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
    constants = {f"{out}|numbers": numbers, **_scale_and_zero(out, scale, np.int8)}
    return [helper.make_node("DequantizeLinear", list(constants), [out], name=out, axis=axis)], constants


def _activation(
    tensor: str, scale: NDArray[np.float32], kind: str, out: str
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    from onnx import helper

    constants = _scale_and_zero(out, scale, np.int8 if kind == SIGNED else np.uint8)
    stored = f"{out}|numbers"
    return [
        helper.make_node("QuantizeLinear", [tensor, *constants], [stored], f"{out}|quantize", axis=1),
        helper.make_node("DequantizeLinear", [stored, *constants], [out], out, axis=1),
    ], constants


def _scale_and_zero(out: str, scale: NDArray[np.float32], kind: type) -> dict[str, NDArray[np.generic]]:
    """One number each, or one a channel."""
    scale = scale if scale.size > 1 else scale.reshape(())
    return {f"{out}|scale": scale, f"{out}|zero": np.zeros(scale.shape, kind)}
