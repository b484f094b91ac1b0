# SPDX-License-Identifier: Apache-2.0
"""What the graph of an imported ONNX network determines about its input and output, independent of any image.

The graph takes precedence over the values of a test image: a saturated Sigmoid gives 0 and 1 alone, logits may happen
to be integers, and an image may show few of the classes.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from canet_ros.model.onnx_file import opset_of
from canet_ros.model.onnx_graph import attribute_of, operators


class Kind(Enum):
    """What the numbers of an output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    SCORES = (
        "scores without a known threshold"  # their order counts: logits behind a ReLU, logarithms, 255 * p
    )
    IDS = "class ids"
    UNKNOWN = "unknown"


class OutputEvidence(NamedTuple):
    """What the graph determines about an output.

    Attributes:
        kind: what the numbers are; ``Kind.UNKNOWN`` if the operators do not determine it.
        classes: number of classes that the ids are chosen from, or that the Softmax covers; None: not determined.
    """

    kind: Kind
    classes: int | None = None


_UNKNOWN = OutputEvidence(Kind.UNKNOWN)


_CONVOLUTIONS = operators("Conv ConvInteger ConvTranspose QLinearConv")
_ARITHMETIC = operators("Add Div Mul Sub")
_ROUNDING = operators("Ceil Floor Round")
# Operators whose output kind does not depend on their input.
_KINDS = {
    **dict.fromkeys(operators("Softmax Sigmoid HardSigmoid Hardmax"), Kind.PROBABILITIES),
    **dict.fromkeys(
        _CONVOLUTIONS
        | operators(
            "BatchNormalization Einsum Elu Gemm InstanceNormalization LayerNormalization LeakyRelu MatMul "
            "MatMulInteger PRelu QLinearMatMul Tanh"
        ),
        Kind.LOGITS,
    ),
    **dict.fromkeys(operators("LogSoftmax Relu Softplus ThresholdedRelu"), Kind.SCORES),
    **dict.fromkeys(
        operators("And ArgMax ArgMin Equal Greater GreaterOrEqual Less LessOrEqual Not Or Xor"), Kind.IDS
    ),
}
# Operators over classes, and their axis where the node does not name it.
_DEFAULT_AXIS = {"Softmax": -1, "ArgMax": 0, "ArgMin": 0, "TopK": -1}
# Operators behind which the numbers of their first input are what they were.
_TRANSPARENT = operators(
    "AveragePool Cast CastLike CenterCropPad DepthToSpace DequantizeLinear Dropout Expand Flatten GatherElements "
    "GatherND Identity MaxPool Pad QuantizeLinear Reshape Resize Slice Split Squeeze Tile Transpose Unsqueeze Upsample"
)
# Between a channel axis and the convolution that has it: element by element, at most another height and width.
_KEEPS_CHANNELS = (_ARITHMETIC | _ROUNDING) | operators(
    "BatchNormalization Cast Clip DequantizeLinear Dropout Elu Exp HardSigmoid Hardmax Identity InstanceNormalization "
    "LeakyRelu Log LogSoftmax QuantizeLinear Relu Resize Sigmoid Softmax Softplus Tanh ThresholdedRelu Upsample"
)


class GraphEvidence:
    """Reads a graph (onnx.ModelProto) of which shapes are inferred as far as they can be."""

    def __init__(self, network: Any) -> None:
        graph = network.graph
        self._opset = opset_of(network)
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._consumers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._shapes = {
            value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.value_info, *graph.input, *graph.output)
        }

    def output(self, name: str) -> OutputEvidence:
        """What the tensor ``name`` holds."""
        node = self._producers.get(name)
        if node is None:
            return _UNKNOWN
        operator = node.op_type
        if operator == "TopK":
            values = name == node.output[0]
            return self.output(node.input[0]) if values else OutputEvidence(Kind.IDS, self._classes(node))
        if operator in _KINDS:
            kind = _KINDS[operator]
            known = 2 if kind is Kind.IDS else None  # a comparison
            return OutputEvidence(kind, self._classes(node) if operator in _DEFAULT_AXIS else known)
        if operator in _TRANSPARENT:
            return self.output(node.input[0])
        if operator == "Gather":
            table = self._constant(node.input[0])
            found = self.output(node.input[0 if table is None else 1])
            chosen = table is not None and found.kind is Kind.IDS
            return OutputEvidence(Kind.IDS, _count(table)) if chosen else found
        numbers = [(read, self._constant(read)) for read in node.input[operator == "Where" :] if read]
        constants = [value for _, value in numbers if value is not None]
        inputs = [self.output(read) for read, value in numbers if value is None]
        if operator == "Where":
            if not inputs:
                return OutputEvidence(Kind.IDS, _count(*constants))
            kinds = {found.kind for found in inputs}
            return OutputEvidence(kinds.pop()) if len(kinds) == 1 else _UNKNOWN
        return self._of_numbers(node, inputs, constants) if inputs else _UNKNOWN

    def _of_numbers(
        self, node: Any, inputs: list[OutputEvidence], constants: list[NDArray[Any]]
    ) -> OutputEvidence:
        """Behind an operator that changes the numbers of its ``inputs``."""
        operator, (kind, classes) = node.op_type, inputs[0]
        if operator in ("Concat", "Max", "Mean", "Min"):
            if len(set(inputs)) > 1:
                return _UNKNOWN
            cut = operator in ("Max", "Min") and constants and kind is Kind.LOGITS
            return OutputEvidence(Kind.SCORES) if cut else inputs[0]
        if operator == "Clip":
            low = self._constant(node.input[1]) if len(node.input) > 1 else None
            cut = kind is Kind.LOGITS and low is not None and float(low.min()) >= 0
            return OutputEvidence(Kind.SCORES) if cut else inputs[0]
        if operator in ("Exp", "Log"):
            source = self._producers.get(node.input[0])
            of_log = operator == "Exp" and source is not None and source.op_type == "LogSoftmax"
            return OutputEvidence(Kind.PROBABILITIES if of_log else Kind.SCORES)
        if operator in _ROUNDING:
            return OutputEvidence(Kind.IDS, 2) if kind is Kind.PROBABILITIES else inputs[0]
        if operator not in _ARITHMETIC:
            return _UNKNOWN
        if len(inputs) > 1:  # a residual, or a gate
            logits = any(found.kind is Kind.LOGITS for found in inputs) and operator != "Div"
            return OutputEvidence(Kind.LOGITS) if logits else _UNKNOWN
        if kind is Kind.PROBABILITIES:  # times 255, or 1 - p
            return OutputEvidence(Kind.SCORES) if operator in ("Mul", "Div") else _UNKNOWN
        if operator == "Mul" and (kind, classes) == (Kind.IDS, 2) and constants:  # 0 and 255
            return OutputEvidence(Kind.IDS, _count(*constants))
        return OutputEvidence(kind)

    def output_layout(self, name: str) -> str | None:
        """NCHW or NHWC, by the convolution that made the channels; None: not determined."""
        permutations = []
        while (node := self._producers.get(name)) is not None and node.op_type not in _CONVOLUTIONS:
            if node.op_type == "Transpose":
                permutations.append(attribute_of(node, "perm", [3, 2, 1, 0]))
            elif node.op_type not in _KEEPS_CHANNELS:
                return None
            name = next((read for read in node.input if self._constant(read) is None), "")
        if node is None:
            return None
        axis = 1
        for permutation in reversed(permutations):
            axis = list(permutation).index(axis)
        return {1: "NCHW", 3: "NHWC"}.get(axis)

    def input_layout(self, name: str) -> str | None:
        """NCHW or NHWC, by the convolution that takes the channels; None: not determined."""
        nodes = self._from_input(name)
        if not nodes or nodes[-1].op_type not in _CONVOLUTIONS:
            return None
        axis = 1
        for node in reversed(nodes):
            if node.op_type == "Transpose":
                axis = attribute_of(node, "perm", [3, 2, 1, 0])[axis]
        return {1: "NCHW", 3: "NHWC"}.get(axis)

    def takes_bytes(self, name: str) -> bool:
        """Whether the graph scales pixels of 0 to 255 itself before it convolves them."""
        for node in self._from_input(name):
            constant = next((c for c in map(self._constant, node.input) if c is not None and c.size), None)
            if constant is None or node.op_type not in _ARITHMETIC:
                continue
            size = float(np.abs(constant).max())
            if node.op_type == "Mul" and (size > 20 or 0 < size < 0.05):
                return size < 0.05
            if size > 20:  # a divisor, or a mean
                return True
        return False

    def _from_input(self, name: str) -> list[Any]:
        """The nodes that the input goes through one after another, up to the first that has learned weights."""
        nodes: list[Any] = []
        while len(consumers := self._consumers.get(name, [])) == 1:
            (node,) = consumers
            nodes.append(node)
            if node.op_type not in {*_ARITHMETIC, "Cast", "Clip", "Identity", "Pad", "Transpose"}:
                break
            name = node.output[0]
        return nodes

    def _classes(self, node: Any) -> int | None:
        """Size of the axis that an operator goes over."""
        default = 1 if node.op_type == "Softmax" and self._opset < 13 else _DEFAULT_AXIS[node.op_type]
        axis, shape = attribute_of(node, "axis", default), self._shapes.get(node.input[0], [])
        return shape[axis] if -len(shape) <= axis < len(shape) else None

    def _constant(self, name: str) -> NDArray[Any] | None:
        if name in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[name]))
        node = self._producers.get(name)
        if node is None:
            return None
        if node.op_type in ("Cast", "Identity", "Unsqueeze", "Reshape", "DequantizeLinear"):
            return self._constant(node.input[0])
        if node.op_type != "Constant":
            return None
        (attribute,) = node.attribute
        value = helper.get_attribute_value(attribute)
        return np.asarray(numpy_helper.to_array(value) if attribute.name == "value" else value)


def _count(*ids: NDArray[Any] | None) -> int | None:
    """Number of classes, given the possible ids."""
    highest = max(
        (float(values.max()) for values in ids if values is not None and values.size), default=np.nan
    )
    return int(highest) + 1 if np.isfinite(highest) else None
