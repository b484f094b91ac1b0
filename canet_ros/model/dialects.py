# SPDX-License-Identifier: Apache-2.0
"""The deployment graph in the dialect of the engine that reads it. Dialects differ here and nowhere else.

| target | ends | zero points of int8 | types |
| --- | --- | --- | --- |
| openvino | bytes at once become numbers late | as calibrated | fp32; the engine computes in bf16 or int8 itself |
| onnxruntime | the same | as calibrated | fp32, fp16 on a GPU |
| tensorrt | bytes are cast first and last: TensorRT does nothing else with them | INT8, 0 | as written in the graph |

TensorRT computes in the type of every tensor ("strongly typed"), so that its graph says where half precision is too
coarse. Turing (SM75) multiplies no matrices in fp32: beside int8 everything else is in fp16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from canet_ros.model.onnx_graph import (
    constants_of,
    names_read,
    operators,
    rename_inputs,
    set_nodes,
    subgraphs,
)

# Kept in fp32: what sums over many pixels, and what grows beyond 65504 or shrinks below 6e-8 on its way.
_WIDE_OPERATORS = operators(
    "AveragePool CumSum Div Erf Exp GlobalAveragePool GroupNormalization InstanceNormalization LayerNormalization "
    "Log LogSoftmax LpNormalization MeanVarianceNormalization Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceMean ReduceProd ReduceSum ReduceSumSquare Sigmoid Softmax Softplus Sqrt "
    # fp32 scales: TensorRT multiplies in int8 through the casts, and converts scales of fp16 back with a warning.
    "DequantizeLinear DynamicQuantizeLinear QuantizeLinear"
)
# Normalisation of pixels and the way from logits to classes, by the scopes of their nodes.
_WIDE_SCOPES = ("/pixels/", "/classes/")
# Inputs that are always fp32.
_ALWAYS_FP32 = {"Resize": (1, 2), "Upsample": (1,), "BatchNormalization": (1, 2, 3, 4)}
_BOUNDED = operators("Clip Max Relu Sigmoid")
_ARITHMETIC = operators("Add Sub Mul Max Min Clip PRelu Greater Less")
# Operators that hand on what they read.
_MOVES = operators("Expand Flatten Gather Identity Reshape Slice Squeeze Transpose Unsqueeze")


def half(model: Any) -> None:
    """Put weights and arithmetic of a graph (onnx.ModelProto) into fp16, in place; fp32 where that is too coarse."""
    graph = model.graph
    _name_constants(graph)
    types = _types(model)
    values = {value.name: value for value in graph.initializer}
    inner = [one for node in graph.node for graph_within in subgraphs(node) for one in graph_within.node]
    # Read by a graph within a node, or given: under this name and in fp32.
    kept = {*(name for node in inner for name in names_read(node)), *(value.name for value in graph.output)}
    halves: set[str] = set()  # tensors that are fp16 now
    casts: set[str] = set()
    nodes: list[Any] = []

    def cast(name: str, to: int) -> str:
        other = f"{name}|{'half' if to == TensorProto.FLOAT16 else 'float'}"
        if name in values:
            if other not in values:
                with np.errstate(over="ignore"):
                    number = numpy_helper.to_array(values[name]).astype(np.float16)
                values[other] = numpy_helper.from_array(number, other)
                graph.initializer.append(values[other])
        elif other not in casts:
            casts.add(other)
            nodes.append(helper.make_node("Cast", [name], [other], other, to=to))
        return other

    for node in graph.node:
        wide = _is_wide(node, values)
        for place, name in enumerate(node.input):
            if types.get(name) != TensorProto.FLOAT:
                continue
            wants_half = not wide and place not in _ALWAYS_FP32.get(node.op_type, ())
            if wants_half != (name in halves):
                node.input[place] = cast(name, TensorProto.FLOAT16 if wants_half else TensorProto.FLOAT)
        nodes.append(node)
        if wide:
            continue
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
            node.attribute[0].i = TensorProto.FLOAT16
        elif node.op_type == "ConstantOfShape" and types.get(node.output[0]) == TensorProto.FLOAT:
            number = numpy_helper.to_array(node.attribute[0].t) if node.attribute else np.zeros(1)
            del node.attribute[:]
            node.attribute.append(
                helper.make_attribute("value", numpy_helper.from_array(number.astype(np.float16)))
            )
        for place, name in enumerate(node.output):
            if types.get(name) != TensorProto.FLOAT:
                continue
            if name in kept:
                node.output[place] = f"{name}|half"
                nodes.append(helper.make_node("Cast", [f"{name}|half"], [name], name, to=TensorProto.FLOAT))
                casts.add(f"{name}|half")
            else:
                halves.add(name)
    set_nodes(graph, nodes)


def for_tensorrt(model: Any) -> None:
    """Leave bytes at the graph's ends alone, and make int8 symmetric, in place; types stay as they are."""
    _name_constants(model.graph)
    _make_symmetric(model.graph)
    _cast_at_the_ends(model.graph)
    set_nodes(model.graph, list(model.graph.node))


def _is_wide(node: Any, values: dict[str, Any]) -> bool:
    """Whether a node computes in fp32."""
    if node.op_type in _WIDE_OPERATORS or node.name.startswith(_WIDE_SCOPES) or any(subgraphs(node)):
        return True
    constants = [numpy_helper.to_array(values[name]) for name in node.input if name in values]
    floats = [numbers for numbers in constants if numbers.dtype == np.float32]
    with np.errstate(over="ignore"):
        halves = [numbers.astype(np.float16).astype(np.float32) for numbers in floats]
    if any(np.isinf(numbers).any() for numbers in halves):
        return True
    # A number that is added or multiplied to all others must not vanish.
    return node.op_type in _ARITHMETIC and any(
        ((one == 0) & (other != 0)).any() for one, other in zip(halves, floats)
    )


def _make_symmetric(graph: Any) -> None:
    """INT8 with zero points of 0 for all 8-bit numbers: their range stays, its steps double at most.

    ONNX Runtime's quantiser writes zero points of any value, and biases in INT32; TensorRT takes neither.
    """
    values = constants_of(graph)
    makers = {name: node.op_type for node in graph.node for name in node.output}

    def add(name: str, numbers: NDArray[Any]) -> str:
        if name not in values:
            values[name] = numbers
            graph.initializer.append(numpy_helper.from_array(numbers, name))
        return name

    for node in list(graph.node):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        stored, scale, zero = (*node.input, "")[:3]
        if not {scale, zero} <= {*values, ""}:
            continue  # computed in the graph: left to TensorRT's parser
        is_weight = node.op_type == "DequantizeLinear" and stored in values
        numbers = values[stored] if is_weight else np.zeros(0, np.uint8)
        first = values[zero] if zero else np.zeros(values[scale].shape, numbers.dtype)
        if first.dtype == np.int32:  # a bias
            add(
                node.output[0], (numbers * _per_channel(node, values[scale], numbers.ndim)).astype(np.float32)
            )
            graph.node.remove(node)
            continue
        if first.dtype not in (np.int8, np.uint8) or (first.dtype == np.int8 and zero and not first.any()):
            continue
        limits, first = np.iinfo(first.dtype), first.astype(int)
        # Of signed numbers -128 is left unused, as in all symmetric scales.
        factor = (np.maximum(limits.max - first, first - limits.min) / 127).astype(np.float32)
        if is_weight:
            moved = (numbers - _per_channel(node, first, numbers.ndim)) / _per_channel(
                node, factor, numbers.ndim
            )
            stored = add(f"{stored}|symmetric", np.round(moved).clip(-127, 127).astype(np.int8))
        elif node.op_type == "QuantizeLinear" and makers.get(stored) not in _BOUNDED:
            # Tools leave out a ReLU where the range that is rounded to begins at 0.
            least = np.asarray(values[scale] * (limits.min - first), np.float32)
            clipped = f"{stored}|{scale}|clipped"
            if least.size == 1 and clipped not in makers:
                # Not Clip: TensorRT gives it an upper bound that half precision cannot hold, and warns.
                makers[clipped] = "Max" if least.any() else "Relu"
                bounds = [add(f"{clipped}|least", least.reshape(()))] if least.any() else []
                limited = helper.make_node(makers[clipped], [stored, *bounds], [clipped], clipped)
                graph.node.insert(list(graph.node).index(node), limited)
            stored = clipped if clipped in makers else stored
        node.input[:] = [
            stored,
            add(f"{scale}|{zero}|symmetric", values[scale] * factor),
            add(f"{scale}|{zero}|zero", np.zeros(first.shape, np.int8)),
        ]


def _per_channel(node: Any, numbers: NDArray[Any], rank: int) -> NDArray[Any]:
    """One number, or one a channel, in a shape that broadcasts over a tensor of this rank."""
    if numbers.size == 1 or rank == 1:
        return numbers
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    return numbers.reshape([-1 if side == axis % rank else 1 for side in range(rank)])


def _cast_at_the_ends(graph: Any) -> None:
    """Cast bytes first and last, and let whole numbers in between be INT32."""
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            numbers = f"{value.name}|float"
            rename_inputs(graph.node, {value.name: numbers})
            first = helper.make_node("Cast", [value.name], [numbers], numbers, to=TensorProto.FLOAT)
            graph.node.insert(0, first)
    makers = {name: node for node in graph.node for name in node.output}
    last = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.UINT8]
    for output in last:
        # From the output back to the cast, over what only moves numbers, which from here on moves floats.
        node = moving = makers[output]
        while node.op_type in _MOVES:
            node, moving = makers[node.input[0]], node
        if moving is not node and node.op_type == "Cast":
            rename_inputs(graph.node, {node.output[0]: node.input[0]})
            numbers = f"{output}|numbers"
            makers[output].output[0] = numbers
            graph.node.append(helper.make_node("Cast", [numbers], [output], output, to=TensorProto.UINT8))
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.UINT8 and node.output[0] not in last:
            node.attribute[0].i = TensorProto.INT32


def _types(model: Any) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.data_type for value in model.graph.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _name_constants(graph: Any) -> None:
    """Make initialisers of all constants."""
    for node in [one for one in graph.node if one.op_type == "Constant" and one.attribute[0].name == "value"]:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)
