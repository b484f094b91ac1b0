# SPDX-License-Identifier: Apache-2.0
"""Read a network that somebody else exported as ONNX, and refuse by name what engines cannot run or must not touch."""

from __future__ import annotations

import graphlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx.inliner

from canet_ros.hints import canet_command
from canet_ros.model.model_folder import ModelError

MAX_BYTES = 2**30  # of graph and weights together; a protobuf ends at 2 GiB, and copies of it are made
OPSET_MIN = 11
_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml"))


def read_onnx(path: Path) -> Any:
    """The model (onnx.ModelProto) with all its weights, local functions inlined, checked.

    Weights in files of their own are read if they lie in the file's folder.

    Raises:
        ModelError: it is no ONNX file, is over ``MAX_BYTES``, has weights outside of its folder, operators that are
            not ONNX's own, or an opset that is too old or too new.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: copy the whole model folder, or make one: {canet_command('import')}"
        )
    _check_size(path, path.stat().st_size)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own, of several modules
        raise ModelError(f"{path} is no readable ONNX file: {error}") from error
    if not model.graph.node:
        raise ModelError(f"{path} is no readable ONNX file: it holds no graph")
    _check_opset(path, model)
    _check_operators(path, model)
    _check_external_data(path, model)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        _bring_in_order(model)
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the checker's, and whatever a broken file leads to
        raise ModelError(f"{path} is not valid ONNX: {' '.join(str(error).split())}") from error
    return model


def _bring_in_order(model: Any) -> None:
    """Mend what converters leave and ONNX Runtime takes, and the checker would refuse."""
    graph = model.graph
    if 0 < model.ir_version < 4:
        model.ir_version = 4  # from here on weights need not be inputs too
    for value in [*graph.input, *graph.output]:
        shape = value.type.tensor_type.shape
        if not value.type.HasField("tensor_type"):
            continue
        if not value.type.tensor_type.HasField("shape"):
            for _ in range(4):
                shape.dim.add()
        for dim in shape.dim:
            if dim.dim_value <= 0:  # PaddlePaddle's word for any
                dim.ClearField("dim_value")
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = {
        index: {producers[name] for name in names_read(node) if name in producers}
        for index, node in enumerate(graph.node)
    }
    if any(index <= other for index, others in before.items() for other in others):
        order = list(graphlib.TopologicalSorter(before).static_order())
        nodes = [graph.node[index] for index in order]
        del graph.node[:]
        graph.node.extend(nodes)


def names_read(node: Any) -> list[str]:
    """Names that a node reads, also those that the graphs within it may take from outside."""
    names = list(node.input)
    for graph in subgraphs(node):
        names += [output.name for output in graph.output]
        names += [name for inner in graph.node for name in names_read(inner)]
    return names


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise ModelError(
            f"{path} is {size / 2**20:.0f} MiB with its weights, more than the {MAX_BYTES / 2**20:.0f} MiB that a "
            "network may have here"
        )


def _check_opset(path: Path, model: Any) -> None:
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if opset < OPSET_MIN:
        raise ModelError(
            f"{path} has opset {opset}: export it again with opset {OPSET_MIN} or newer, best 17"
        )
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path} is of IR version {model.ir_version}, newer than the {onnx.IR_VERSION} that this onnx "
            f"({onnx.__version__}) knows: pip install --upgrade onnx, or export it with an older one"
        )
    if opset > newest:
        raise ModelError(
            f"{path} has opset {opset}, newer than the {newest} that this onnx ({onnx.__version__}) knows: export it "
            "with opset 17, or pip install --upgrade onnx"
        )


def opset_of(model: Any) -> int:
    """Version of ONNX's own operators; 0 where the file names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _check_operators(path: Path, model: Any) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    foreign = Counter(
        f"{node.domain}::{node.op_type}"
        for nodes in graphs
        for node in _all_nodes(nodes)
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in functions
    )
    if foreign:
        names = ", ".join(f"{name} ({count})" for name, count in foreign.items())
        raise ModelError(f"{path} has operators that are not ONNX's own: {names}; export it without them")


def _check_external_data(path: Path, model: Any) -> None:
    folder = path.parent.resolve()
    files = set()
    for tensor in _external_tensors(model):
        file = (path.parent / _location(tensor)).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: the weights {tensor.name!r} lie in {_location(tensor)!r}, outside of the model's folder: "
                "put the file itself there, not a link, and name it without a path"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: the weights {tensor.name!r} lie in {_location(tensor)!r}, which is missing: copy it too"
            )
        files.add(file)
    _check_size(path, path.stat().st_size + sum(file.stat().st_size for file in files))


def _external_tensors(model: Any) -> Iterator[Any]:
    nodes = list(_all_nodes(model.graph.node))
    for function in model.functions:
        nodes += _all_nodes(function.node)
    graphs = [model.graph, *(graph for node in nodes for graph in subgraphs(node))]
    for graph in graphs:
        yield from (tensor for tensor in graph.initializer if _location(tensor))
        for sparse in graph.sparse_initializer:
            yield from (tensor for tensor in (sparse.values, sparse.indices) if _location(tensor))
    for node in nodes:
        for attribute in node.attribute:
            yield from (tensor for tensor in (attribute.t, *attribute.tensors) if _location(tensor))


def _location(tensor: Any) -> str:
    """Where a tensor's numbers lie; empty: in the model itself."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _all_nodes(nodes: Any) -> Iterator[Any]:
    """Nodes, and those of the graphs within them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all_nodes(graph.node)


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs that a node (If, Loop, Scan) holds itself."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs
