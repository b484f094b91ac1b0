# SPDX-License-Identifier: Apache-2.0
"""Reading and building ONNX graphs: what everything that handles them shares."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# Operators whose attribute ``axes`` became an input, and the opset where it did.
_AXES_ARE_INPUT = {"ReduceSum": 13, "ReduceMax": 18}


def operators(names: str) -> frozenset[str]:
    """A set of operators, written with spaces between them."""
    return frozenset(names.split())


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs that a node (If, Loop, Scan) holds itself."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes, and those of the graphs within them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)


def names_read(node: Any) -> list[str]:
    """Names that a node reads, also those that the graphs within it may take from outside."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        names += [output.name for output in graph.output]
        names += [name for inner in graph.node for name in names_read(inner)]
    return names


def attribute_of(node: Any, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    found = [attribute for attribute in node.attribute if attribute.name == name]
    return helper.get_attribute_value(found[0]) if found else default


def constants_of(graph: Any) -> dict[str, NDArray[Any]]:
    """Numbers of a graph's initialisers and Constant nodes by name."""
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return values


def rename_inputs(nodes: Iterable[Any], names: Mapping[str, str]) -> None:
    """Let nodes read tensors of other names."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]


def live_nodes(nodes: Sequence[Any], outputs: Iterable[str]) -> list[Any]:
    """Those of the nodes, which are in order, that the outputs depend on."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(names_read(node))
    return kept[::-1]


def in_order(nodes: Sequence[Any]) -> list[Any]:
    """The nodes, each behind those that it reads from; raises graphlib.CycleError."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    read = {i: {makers[name] for name in names_read(node) if name in makers} for i, node in enumerate(nodes)}
    return [nodes[index] for index in graphlib.TopologicalSorter(read).static_order()]


def set_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Give a graph these nodes and drop what its outputs do not depend on, weights too."""
    outputs = [value.name for value in graph.output]
    nodes = live_nodes(nodes, outputs)
    needed = {*outputs, *(name for node in nodes for name in names_read(node))}
    weights = [value for value in graph.initializer if value.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


class Nodes:
    """Adds nodes of one scope; NumPy arrays among the inputs become constants. Gives the name of the result."""

    def __init__(self, opset: int) -> None:
        self.scope = ""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opset = opset

    def __call__(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        name = f"{self.scope}/{operator}_{len(self.nodes)}"
        names = [
            self.constant(f"{name}_constant_{index}", value) if isinstance(value, np.ndarray) else value
            for index, value in enumerate(inputs)
        ]
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def second(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        """Gives the name of the second of two results."""
        name = self(operator, *inputs, **attributes)
        self.nodes[-1].output.append(f"{name}_second")
        return f"{name}_second"

    def reduce(self, operator: str, planes: str, keepdims: int) -> str:
        """Over the channels."""
        if self.opset >= _AXES_ARE_INPUT[operator]:
            return self(operator, planes, np.array([1]), keepdims=keepdims)
        return self(operator, planes, axes=[1], keepdims=keepdims)
