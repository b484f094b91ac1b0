# SPDX-License-Identifier: Apache-2.0
"""What the graph of a network that is not ours says about its input and its output, whatever values an image gives.

Values of one image decide nothing that the graph decides: a saturated Sigmoid gives 0 and 1 alone, logits may happen to
be whole numbers, and a network may see few of its classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from canet_ros.model.onnx_file import opset_of


class Kind(Enum):
    """What the numbers of an output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"
    SCORES = "scores without a known threshold"  # their order counts: logits behind a ReLU, probabilities times 255
    IDS = "class ids"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class OutputEvidence:
    """What the graph says about an output.

    Attributes:
        kind: what the numbers are; ``Kind.UNKNOWN`` where operators do not tell.
        classes: how many classes the ids are chosen from, or the Softmax goes over; None where the graph does not tell.
    """

    kind: Kind
    classes: int | None = None


_UNKNOWN = OutputEvidence(Kind.UNKNOWN)
_PROBABILITIES = frozenset(("Softmax", "Sigmoid", "HardSigmoid", "Hardmax"))
_LOGITS = frozenset(
    (
        "BatchNormalization",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "Einsum",
        "Elu",
        "Gemm",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "MatMulInteger",
        "PRelu",
        "QLinearConv",
        "QLinearMatMul",
        "Tanh",
    )
)
_SCORES = frozenset(("Relu", "Softplus", "ThresholdedRelu"))
_COMPARISONS = frozenset(
    ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor")
)
# Operators behind which the numbers of their first input are what they were.
_TRANSPARENT = frozenset(
    (
        "AveragePool",
        "Cast",
        "CastLike",
        "CenterCropPad",
        "DepthToSpace",
        "DequantizeLinear",
        "Dropout",
        "Expand",
        "Flatten",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "Pad",
        "QuantizeLinear",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    )
)
_ALIKE = frozenset(("Concat", "Max", "Mean", "Min"))  # all of whose inputs must be of one kind
_ARITHMETIC = frozenset(("Add", "Div", "Mul", "Sub"))
_ROUNDING = frozenset(("Ceil", "Floor", "Round"))
# Between a channel axis and the convolution that has it: element by element, at most another height and width.
_KEEPS_CHANNELS = (_PROBABILITIES | _SCORES | _ARITHMETIC | _ROUNDING) | frozenset(
    (
        "BatchNormalization",
        "Cast",
        "Clip",
        "DequantizeLinear",
        "Dropout",
        "Elu",
        "Exp",
        "Identity",
        "InstanceNormalization",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "QuantizeLinear",
        "Resize",
        "Tanh",
        "Upsample",
    )
)
_CONVOLUTIONS = frozenset(("Conv", "ConvInteger", "ConvTranspose", "QLinearConv"))


class GraphEvidence:
    """Reads a graph (onnx.ModelProto) of which shapes are inferred as far as they can be."""

    def __init__(self, network: Any) -> None:
        self._opset = opset_of(network)
        self._producers = {name: node for node in network.graph.node for name in node.output if name}
        self._consumers: dict[str, list[Any]] = {}
        for node in network.graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._initializers = {tensor.name: tensor for tensor in network.graph.initializer}
        values = (*network.graph.value_info, *network.graph.input, *network.graph.output)
        self._shapes = {
            value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
            for value in values
        }

    def output(self, name: str) -> OutputEvidence:
        """What the tensor ``name`` holds."""
        node = self._producers.get(name)
        if node is None:
            return _UNKNOWN
        operator = node.op_type
        if operator == "Softmax":
            axis = _attribute(node, "axis", -1 if self._opset >= 13 else 1)
            return OutputEvidence(Kind.PROBABILITIES, self._side(node.input[0], axis))
        if operator in _PROBABILITIES:
            return OutputEvidence(Kind.PROBABILITIES)
        if operator == "LogSoftmax":
            return OutputEvidence(Kind.LOG_PROBABILITIES)
        if operator in _LOGITS:
            return OutputEvidence(Kind.LOGITS)
        if operator in _SCORES:
            return OutputEvidence(Kind.SCORES)
        if operator in _COMPARISONS:
            return OutputEvidence(Kind.IDS, 2)
        if operator in ("ArgMax", "ArgMin"):
            return OutputEvidence(Kind.IDS, self._side(node.input[0], _attribute(node, "axis", 0)))
        if operator == "TopK":
            if name == node.output[0]:
                return self.output(node.input[0])
            return OutputEvidence(Kind.IDS, self._side(node.input[0], _attribute(node, "axis", -1)))
        if operator == "Where":
            return self._choice(node)
        if operator == "Gather":
            table = self._constant(node.input[0])
            if table is None:
                return self.output(node.input[0])
            chosen = self.output(node.input[1])
            return chosen if chosen.kind is not Kind.IDS else OutputEvidence(Kind.IDS, _count(table))
        if operator in _TRANSPARENT:
            return self.output(node.input[0])
        if operator in _ALIKE:
            alike = {self.output(name) for name in node.input if self._constant(name) is None}
            cut = operator in ("Max", "Min") and any(self._constant(name) is not None for name in node.input)
            if len(alike) != 1:
                return _UNKNOWN
            (found,) = alike
            return OutputEvidence(Kind.SCORES) if cut and found.kind is Kind.LOGITS else found
        return self._of_numbers(node)

    def _of_numbers(self, node: Any) -> OutputEvidence:
        """Behind an operator that changes the numbers."""
        operator = node.op_type
        inputs = [self.output(name) for name in node.input if self._constant(name) is None]
        kind = inputs[0].kind if inputs else Kind.UNKNOWN
        if operator == "Clip":
            low = self._constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            cut = kind is Kind.LOGITS and low is not None and float(low.min()) >= 0
            return OutputEvidence(Kind.SCORES) if cut else inputs[0]
        if operator == "Log":
            return OutputEvidence(Kind.LOG_PROBABILITIES if kind is Kind.PROBABILITIES else Kind.SCORES)
        if operator == "Exp":
            return OutputEvidence(Kind.PROBABILITIES if kind is Kind.LOG_PROBABILITIES else Kind.SCORES)
        if operator in _ROUNDING:
            return OutputEvidence(Kind.IDS, 2) if kind is Kind.PROBABILITIES else inputs[0]
        if operator not in _ARITHMETIC:
            return _UNKNOWN
        if len(inputs) > 1:  # a residual, or a gate
            logits = any(found.kind is Kind.LOGITS for found in inputs) and operator != "Div"
            return OutputEvidence(Kind.LOGITS) if logits else _UNKNOWN
        if kind is Kind.PROBABILITIES:  # times 255, or 1 - p
            return OutputEvidence(Kind.SCORES) if operator in ("Mul", "Div") else _UNKNOWN
        if operator == "Mul" and inputs and inputs[0] == OutputEvidence(Kind.IDS, 2):  # 0 and 255
            factor = next(c for c in map(self._constant, node.input) if c is not None)
            return OutputEvidence(Kind.IDS, _count(factor))
        return replace(inputs[0], classes=None) if inputs else _UNKNOWN

    def _choice(self, node: Any) -> OutputEvidence:
        chosen = [self._constant(name) for name in node.input[1:]]
        constants = [value for value in chosen if value is not None]
        if len(constants) == 2:
            return OutputEvidence(Kind.IDS, _count(np.concatenate([value.ravel() for value in constants])))
        found = {self.output(name) for name, value in zip(node.input[1:], chosen) if value is None}
        return replace(found.pop(), classes=None) if len(found) == 1 else _UNKNOWN

    def output_layout(self, name: str) -> str | None:
        """NCHW or NHWC, by the convolution that made the channels; None where the graph does not tell."""
        permutations = []
        while (node := self._producers.get(name)) is not None and node.op_type not in _CONVOLUTIONS:
            if node.op_type == "Transpose":
                permutations.append(_attribute(node, "perm", [3, 2, 1, 0]))
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
        """NCHW or NHWC, by the convolution that takes the channels; None where the graph does not tell."""
        nodes = self._from_input(name)
        if not nodes or nodes[-1].op_type not in _CONVOLUTIONS:
            return None
        axis = 1
        for node in reversed(nodes):
            if node.op_type == "Transpose":
                axis = _attribute(node, "perm", [3, 2, 1, 0])[axis]
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
            nodes += consumers
            operator = consumers[0].op_type
            if operator not in _ARITHMETIC and operator not in (
                "Cast",
                "Identity",
                "Transpose",
                "Pad",
                "Clip",
            ):
                break
            name = consumers[0].output[0]
        return nodes

    def _side(self, name: str, axis: int) -> int | None:
        shape = self._shapes.get(name, [])
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


def _attribute(node: Any, name: str, default: Any) -> Any:
    found = [attribute for attribute in node.attribute if attribute.name == name]
    return helper.get_attribute_value(found[0]) if found else default


def _count(ids: NDArray[Any]) -> int | None:
    """How many classes there are where the highest id is one of these."""
    return int(ids.max()) + 1 if ids.size and np.isfinite(ids.max()) else None
