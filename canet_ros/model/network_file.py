# SPDX-License-Identifier: Apache-2.0
"""``network.onnx`` of a model's folder: the network from normalised RGB images to coarse logits, without PyTorch.

The file holds the graph alone, free in batch, height and width, with batch norms as nodes. Weights are external data
in ``weights.safetensors`` next to it, where other tools find them by offset. This module reads them by name, and
follows no path or offset of the file. Nodes are named after the network's modules; int8 scales refer to these names.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from canet_ros.model.model_folder import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    ModelError,
    ModelSpec,
    Resolution,
)
from canet_ros.model.network_graph import (
    IMAGE,
    LOGITS,
    Network,
    Values,
    crop_by_padding,
    fold_constants,
    fold_normalisation,
)
from canet_ros.model.onnx_graph import rename_inputs
from canet_ros.model.untrusted import require_file
from canet_ros.model.weights import hash_weights, read_weights, require_fit, require_hash

_IDENTITY = "made_for"
_MEAN_INPUT = "mean_input|"  # before a convolution's name: mean of each input channel, float32 in base64
_MAX_BYTES = 2**24


def _identity(folder: Path, spec: ModelSpec) -> str:
    """What a network file is written for: the model's architecture and the SHA-256 of its weights."""
    parts = (spec.architecture, spec.backbone, spec.fusion, spec.head, len(spec.classes))
    return f"{_require_weights(folder, spec)} {(*parts, *spec.hidden_channels.items())}"


def _require_weights(folder: Path, spec: ModelSpec) -> str:
    """SHA-256 of the weights, hex; raises ModelError if they are not those that model.yaml was written for."""
    found = hash_weights(folder / WEIGHTS_FILE)
    require_hash(folder / WEIGHTS_FILE, spec.weights_sha256, found)
    return found


def is_current(path: Path, folder: Path, spec: ModelSpec) -> bool:
    """Whether a network file exists that was written for the model in its present state.

    Raises:
        ModelError: the file exists and is broken.
    """
    return path.is_file() and _read(path)[1].get(_IDENTITY) == _identity(folder, spec)


def load_network_file(path: Path, folder: Path, spec: ModelSpec, resolution: Resolution) -> Network:
    """The network for a resolution, over BGR pixels less their rounded mean (``pixel_offset``), not normalised RGB.

    Raises:
        ModelError: the file is broken, or does not fit the weights in ``folder``.
    """
    model, metadata = _read(path)
    _require_weights(folder, spec)
    weights = read_weights(folder / WEIGHTS_FILE)
    expected = {
        value.name: SimpleNamespace(shape=value.dims)
        for value in model.graph.initializer
        if value.data_location == TensorProto.EXTERNAL
    }
    read = {name: numbers for name, numbers in weights.items() if name in expected}
    require_fit(folder / WEIGHTS_FILE, NETWORK_FILE, expected, read)
    try:
        width, height = resolution
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = height, width
        shapes = fold_constants(model)
        crop_by_padding(model.graph, shapes)
        rows, columns, classes = (shapes[LOGITS][axis] for axis in (2, 3, 1))
        if classes != len(spec.classes):
            raise ModelError(f"{path} gives {classes} classes, model.yaml has {len(spec.classes)}")
        if not (isinstance(rows, int) and isinstance(columns, int) and isinstance(classes, int)):
            raise ValueError("the size of its logits does not depend on the size of the image alone")
        nodes, values = _with_weights(model.graph, weights)
    except ModelError:
        raise
    except Exception as error:  # onnx raises many kinds for an invalid graph
        raise ModelError(
            f"{path} is not a network of this package ({' '.join(str(error).split())[:300]})"
        ) from error
    for node in nodes:
        if node.op_type == "Conv" and node.input[0] == IMAGE:
            fold_normalisation(node, values, spec)
    means = {
        key.removeprefix(_MEAN_INPUT): np.frombuffer(base64.b64decode(value), np.float32)
        for key, value in metadata.items()
        if key.startswith(_MEAN_INPUT)
    }
    return Network(nodes, values, (classes, rows, columns), means)


def _with_weights(graph: Any, weights: Values) -> tuple[list[Any], Values]:
    values: Values = {}
    for value in graph.initializer:
        if value.data_location == TensorProto.EXTERNAL:
            number = weights[value.name]
            values[value.name] = number.astype(np.float32) if number.dtype == np.float16 else number
        else:
            values[value.name] = np.array(numpy_helper.to_array(value))
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:  # of fp16 weights
            values[node.output[0]] = values[node.input[0]]
        else:
            nodes.append(node)
    return nodes, values


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    """The graph without its weights, and its metadata."""
    try:
        require_file(path, _MAX_BYTES)
        model = onnx.load(str(path), load_external_data=False)
        if [value.name for value in (*model.graph.input, *model.graph.output)] != [IMAGE, LOGITS]:
            raise ValueError(f"expected input {IMAGE} and output {LOGITS}")
    except Exception as error:  # protobuf has its own kinds
        raise ModelError(f"{path} is not readable ({error}): copy the whole model folder again") from error
    return model, {entry.key: entry.value for entry in model.metadata_props}


def point_into_weights(model: Any, weights: Path) -> None:
    """Replace the weights of a graph, in place, by references into their safetensors file."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    casts = []
    for value in model.graph.initializer:
        entry = header.get(value.name)
        if entry is None:
            continue
        begin, end = entry["data_offsets"]
        half = entry["dtype"] == "F16"
        kind = TensorProto.FLOAT16 if half else value.data_type
        external = TensorProto.EXTERNAL
        value.CopyFrom(TensorProto(name=value.name, dims=value.dims, data_type=kind, data_location=external))
        place = {"location": weights.name, "offset": 8 + length + begin, "length": end - begin}
        for key, text in place.items():
            value.external_data.add(key=key, value=str(text))
        if half:
            wide = f"{value.name}|float"
            rename_inputs(model.graph.node, {value.name: wide})
            casts.append(helper.make_node("Cast", [value.name], [wide], wide, to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def describe(model: Any, folder: Path, spec: ModelSpec, mean_inputs: dict[str, NDArray[np.float32]]) -> None:
    """Write the metadata of a network file: what it is written for, and what rounding takes."""
    means = {
        _MEAN_INPUT + name: base64.b64encode(mean.astype(np.float32).tobytes()).decode()
        for name, mean in mean_inputs.items()
    }
    helper.set_model_props(model, {_IDENTITY: _identity(folder, spec), **means})
