# SPDX-License-Identifier: Apache-2.0
"""A network's graph at one resolution: constants, batch norms and normalisation folded, weights rounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from canet_ros.model.model_folder import ModelSpec
from canet_ros.model.onnx_graph import attribute_of, rename_inputs, set_nodes
from canet_ros.model.rounding import round_convolution

IMAGE, LOGITS = "image", "logits"
_CONVOLUTIONS = ("Conv", "ConvTranspose")
Values = dict[str, NDArray[Any]]


@dataclass
class Network:
    """A network at one resolution.

    Attributes:
        nodes: onnx.NodeProto in order, from ``IMAGE`` to ``LOGITS``.
        values: constants and weights by name, float32 and int64.
        shape: (C, rows, columns) of the logits.
        mean_inputs: mean of each input channel, by the name of the convolution.
    """

    nodes: list[Any]
    values: Values
    shape: tuple[int, int, int]
    mean_inputs: dict[str, NDArray[np.float32]]


def pixel_offset(spec: ModelSpec) -> NDArray[np.float32]:
    """(3,) BGR: what is subtracted from pixels. Whole numbers up to 256 are exact in bf16 and fp16."""
    return np.round(255 * np.array(spec.mean[::-1], np.float32))


def fold_normalisation(node: Any, values: Values, spec: ModelSpec) -> None:
    """Let a convolution over normalised RGB take BGR pixels less their rounded mean, which computes less."""
    std = 255 * np.array(spec.std[::-1], np.float32)
    offset = (255 * np.array(spec.mean[::-1], np.float32) - pixel_offset(spec)) / std
    weight = values[node.input[1]][:, ::-1]
    shift = -(weight * offset.reshape(1, 3, 1, 1)).sum((1, 2, 3))
    bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    _give_own(values, node, 1, weight / std.reshape(1, 3, 1, 1))
    _give_own(values, node, 2, bias + shift)


def fold_batch_norms(network: Network, operators: tuple[str, ...] = ("Conv",)) -> None:
    """Fold batch norms into the convolutions whose outputs only they read, in place.

    Engines fold those of transposed convolutions themselves; int8 scales are those of a graph that leaves them.
    """
    values = network.values
    makers = {name: node for node in network.nodes for name in node.output}
    reads = [name for node in network.nodes for name in node.input]
    for norm in [node for node in network.nodes if node.op_type == "BatchNormalization"]:
        node = makers.get(norm.input[0])
        if node is None or node.op_type not in operators or reads.count(norm.input[0]) != 1:
            continue
        epsilon = attribute_of(norm, "epsilon")
        gamma, beta, mean, variance = (values[name] for name in norm.input[1:])
        deviation = np.sqrt(variance + np.float32(epsilon))
        scale = gamma / deviation
        weight = values[node.input[1]]
        bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(scale), np.float32)
        side = (1, -1, 1, 1) if node.op_type == "ConvTranspose" else (-1, 1, 1, 1)
        _give_own(values, node, 1, weight * scale.reshape(side))
        _give_own(values, node, 2, (bias - mean) * scale + beta)
        network.nodes.remove(norm)
        rename_inputs(network.nodes, {norm.output[0]: node.output[0]})


def round_network(network: Network, precision: str) -> None:
    """Round weights and biases of convolutions to what ``precision`` (bf16, fp16) holds, in place; see ``rounding``."""
    fold_batch_norms(network, _CONVOLUTIONS)
    for node in network.nodes:
        mean = network.mean_inputs.get(node.name)
        if node.op_type not in _CONVOLUTIONS or mean is None:
            continue
        strides = attribute_of(node, "strides")
        rounded, bias = round_convolution(
            network.values[node.input[1]],
            network.values[node.input[2]] if len(node.input) > 2 else None,
            mean,
            precision,
            int(np.prod(strides)) if node.op_type == "ConvTranspose" else 0,
        )
        _give_own(network.values, node, 1, rounded)
        if bias is not None:
            _give_own(network.values, node, 2, bias)


def _give_own(values: Values, node: Any, place: int, number: NDArray[Any]) -> None:
    """Let a node read a number of its own: weights may be shared."""
    name = f"{node.name}|{'weight' if place == 1 else 'bias'}"
    values[name] = np.ascontiguousarray(number, np.float32)
    if place < len(node.input):
        node.input[place] = name
    else:
        node.input.append(name)


def fold_constants(model: Any) -> dict[str, list[int | str]]:
    """Compute what depends on constants and known sizes alone, in place; the shape of every tensor, as far as known."""
    graph = model.graph
    # Weights are external, or empty: their numbers take no part.
    values = {
        value.name: numpy_helper.to_array(value)
        for value in graph.initializer
        if value.data_location != TensorProto.EXTERNAL
        and (value.data_type == TensorProto.INT64 or np.prod(value.dims) <= 8)
    }
    while True:
        del graph.value_info[:]
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        shapes: dict[str, list[int | str]] = {
            value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        makers = {name: node for node in graph.node for name in node.output}
        kept = []
        for node in graph.node:
            number = _constant(node, values, shapes, makers)
            if number is None:
                kept.append(node)
            else:
                values[node.output[0]] = number
                graph.initializer.append(numpy_helper.from_array(number, node.output[0]))
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    set_nodes(graph, list(graph.node))
    return shapes


def _constant(
    node: Any, values: Values, shapes: dict[str, list[int | str]], makers: dict[str, Any]
) -> NDArray[Any] | None:
    """What a node gives, where constants and known sizes decide it."""
    shape_of = makers.get(node.input[0]) if node.op_type == "Gather" else None
    if shape_of is not None and shape_of.op_type == "Shape" and node.input[1] in values:
        place, shape = values[node.input[1]], shapes.get(shape_of.input[0], [])
        size = shape[int(place.item())] if place.size == 1 and place < len(shape) else 0
        return np.full(place.shape, size, np.int64) if isinstance(size, int) and size else None
    if node.op_type == "Constant":
        return np.asarray(numpy_helper.to_array(node.attribute[0].t))
    if not node.input or not all(name in values or not name for name in node.input):
        return None
    feeds = {name: values[name] for name in node.input if name}
    return np.asarray(ReferenceEvaluator(node).run(None, feeds)[0])


def crop_by_padding(graph: Any, shapes: dict[str, list[int | str]]) -> None:
    """Let transposed convolutions give the size that their output is cropped to."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in [one for one in graph.node if one.op_type == "ConvTranspose"]:
        last = node.output[0]
        while len(readers.get(last, [])) == 1 and readers[last][0].op_type == "Slice":
            last = readers[last][0].output[0]
        wanted, found = shapes[last][2:], shapes[node.output[0]][2:]
        if last == node.output[0]:
            continue
        padding = next(a for a in node.attribute if a.name == "output_padding")
        padding.ints[:] = [
            int(padding.ints[axis]) + int(wanted[axis]) - int(found[axis])
            for axis in range(len(padding.ints))
        ]
        rename_inputs(readers[last], {last: node.output[0]})
        while last != node.output[0]:
            crop = makers[last]
            graph.node.remove(crop)
            last = crop.input[0]


def as_initializers(values: Values, nodes: Iterable[Any]) -> list[Any]:
    """onnx.TensorProto of the values that the nodes read."""
    read = {name for node in nodes for name in node.input}
    return [numpy_helper.from_array(number, name) for name, number in values.items() if name in read]
