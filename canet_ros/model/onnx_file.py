# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX network to import, and refuses by name what engines cannot run or must not touch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx.inliner

from canet_ros.hints import canet_command
from canet_ros.model.model_folder import ModelError
from canet_ros.model.onnx_graph import all_nodes, in_order, subgraphs

MAX_BYTES = 2**30  # of graph and weights together; a protobuf ends at 2 GiB, and copies of it are made
OPSET_MIN = 11
_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml"))


def read_onnx(path: Path) -> Any:
    """The model (onnx.ModelProto) with all its weights, local functions inlined, checked.

    Weights in files of their own are read if they lie in the file's folder.

    Raises:
        ModelError: it is not an ONNX file, is over ``MAX_BYTES``, has weights outside of its folder, operators that are
            not ONNX's own, or an opset that is too old or too new.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: copy the whole model folder, or make one: {canet_command('import')}"
        )
    _require_size(path, [path])
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("it contains no graph")
    except Exception as error:  # protobuf's own, of several modules
        raise ModelError(f"{path} is not a readable ONNX file: {error}") from error
    _require_known_opset(path, model)
    _require_own_operators(path, model)
    _require_size(path, [path, *_weight_files(path, model)])
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        _repair(model)
        onnx.checker.check_model(model)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # the checker's, and others for broken files
        raise ModelError(f"{path} is not valid ONNX: {' '.join(str(error).split())}") from error


def opset_of(model: Any) -> int:
    """Version of ONNX's own operators; 0 if the file names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _repair(model: Any) -> None:
    """Repair what converters leave behind: ONNX Runtime accepts it, the checker would not."""
    graph = model.graph
    if 0 < model.ir_version < 4:
        model.ir_version = 4  # from here on weights need not be inputs too
    for value in [*graph.input, *graph.output]:
        if not value.type.HasField("tensor_type"):
            continue
        shape = value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape"):
            for _ in range(4):
                shape.dim.add()
        for dim in shape.dim:
            if dim.dim_value <= 0:  # PaddlePaddle writes -1 for a free size
                dim.ClearField("dim_value")
    nodes = in_order(list(graph.node))
    del graph.node[:]
    graph.node.extend(nodes)


def _require_size(path: Path, files: list[Path]) -> None:
    size = sum(file.stat().st_size for file in files)
    if size > MAX_BYTES:
        raise ModelError(
            f"{path} is {size / 2**20:.0f} MiB with its weights, more than the limit of {MAX_BYTES / 2**20:.0f} MiB"
        )


def _require_known_opset(path: Path, model: Any) -> None:
    opset = opset_of(model)
    if opset < OPSET_MIN:
        raise ModelError(
            f"{path} has opset {opset}: export it again with opset {OPSET_MIN} or newer, preferably 17"
        )
    for what, version, newest in (
        ("opset", opset, onnx.defs.onnx_opset_version()),
        ("IR version", model.ir_version, onnx.IR_VERSION),
    ):
        if version > newest:
            raise ModelError(
                f"{path} has {what} {version}, newer than the {newest} that this onnx ({onnx.__version__}) knows: "
                "export it with opset 17, or pip install --upgrade onnx"
            )


def _require_own_operators(path: Path, model: Any) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    foreign = Counter(
        f"{node.domain}::{node.op_type}"
        for node in _nodes_of_model(model)
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in functions
    )
    if foreign:
        names = ", ".join(f"{name} ({count})" for name, count in foreign.items())
        raise ModelError(
            f"{path} has operators outside of the ONNX standard: {names}; export it without them"
        )


def _weight_files(path: Path, model: Any) -> set[Path]:
    """Files of weights that the model refers to; raises ModelError where one is outside of its folder or missing."""
    files = set()
    for tensor in _tensors(model):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if not location:
            continue
        file = (path.parent / location).resolve()
        if not file.is_relative_to(path.parent.resolve()):
            raise ModelError(
                f"{path}: the weights {tensor.name!r} are in {location!r}, outside of the model's folder: put the file "
                "itself there, not a link, and name it without a path"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: the weights {tensor.name!r} are in {location!r}, which is missing: copy it too"
            )
        files.add(file)
    return files


def _tensors(model: Any) -> Iterator[Any]:
    nodes = list(_nodes_of_model(model))
    for graph in [model.graph, *(graph for node in nodes for graph in subgraphs(node))]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _nodes_of_model(model: Any) -> Iterator[Any]:
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        yield from all_nodes(nodes)
