# SPDX-License-Identifier: Apache-2.0
"""``network.onnx`` of a model's folder: the network from normalised RGB images to coarse logits, without PyTorch.

The file holds the graph alone, free in batch, height and width, with batch norms as nodes. Weights are external data:
they lie in ``weights.safetensors`` beside it, where other tools find them by offset. This module reads them by name, so
that no path or offset of the file is ever followed. Nodes are named after the network's modules; int8 scales refer to
those names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors import SafetensorError
from safetensors.numpy import load_file

from canet_ros.model.model_folder import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    ModelError,
    ModelSpec,
    Resolution,
    require_weights,
)
from canet_ros.model.rounding import round_convolution
from canet_ros.model.untrusted import require_file

IMAGE, LOGITS = "image", "logits"
_IDENTITY = "made_for"
_MEAN_INPUT = (
    "mean_input|"  # before a convolution's name: mean of each of its input channels, float32 in base64
)
_MAX_BYTES = 2**24
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


def identity(folder: Path, spec: ModelSpec) -> str:
    """What a network file was written for: the model's architecture and the SHA-256 of its weights."""
    parts = (
        spec.architecture,
        spec.backbone,
        spec.fusion,
        spec.head,
        len(spec.classes),
        *spec.hidden_channels.items(),
    )
    return f"{require_weights(folder, spec)} {parts}"


def is_current(path: Path, folder: Path, spec: ModelSpec) -> bool:
    """Whether there is a network file that was written for the model as it is now.

    Raises:
        ModelError: the file is there and broken.
    """
    return path.is_file() and _metadata(_read(path)).get(_IDENTITY) == identity(folder, spec)


def load_network_file(path: Path, folder: Path, spec: ModelSpec, resolution: Resolution) -> Network:
    """The network for a resolution, over BGR pixels less their rounded mean (``pixel_offset``), not normalised RGB.

    Raises:
        ModelError: the file is broken, or does not fit the weights in ``folder``.
    """
    model = _read(path)
    require_weights(folder, spec)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{folder / WEIGHTS_FILE} is not a readable safetensors file ({error}): fetch it again"
        ) from error
    try:
        _require_weights(model, weights)
        width, height = resolution
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = height, width
        shapes = fold_constants(model)
        _crop_by_padding(model.graph, shapes)
        rows, columns, classes = (shapes[LOGITS][axis] for axis in (2, 3, 1))
        if classes != len(spec.classes):
            raise ModelError(f"{path} gives {classes} classes, model.yaml has {len(spec.classes)}")
        if not (isinstance(rows, int) and isinstance(columns, int) and isinstance(classes, int)):
            raise ValueError("the size of its logits depends on more than the size of the image")
        nodes, values = _with_weights(model.graph, weights)
    except ModelError:
        raise
    except Exception as error:  # onnx raises what it pleases about a graph that is none
        raise ModelError(
            f"{path} is not a network of this package ({' '.join(str(error).split())[:300]})"
        ) from error
    for node in nodes:
        if node.op_type == "Conv" and node.input[0] == IMAGE:
            _fold_normalisation(node, values, spec)
    return Network(nodes, values, (classes, rows, columns), _mean_inputs(model))


def pixel_offset(spec: ModelSpec) -> NDArray[np.float32]:
    """(3,) BGR: what is subtracted from pixels. Whole numbers up to 256 are exact in bf16 and fp16."""
    return np.round(255 * np.array(spec.mean[::-1], np.float32))


def round_network(network: Network, precision: str) -> None:
    """Round weights and biases of convolutions to what ``precision`` (bf16, fp16) holds, in place; see ``rounding``."""
    fold_batch_norms(network, _CONVOLUTIONS)
    for node in network.nodes:
        mean = network.mean_inputs.get(node.name)
        if node.op_type not in _CONVOLUTIONS or mean is None:
            continue
        strides = next(a.ints for a in node.attribute if a.name == "strides")
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


def fold_constants(model: Any) -> dict[str, list[int | str]]:
    """Compute what depends on constants and known sizes alone, in place; the shape of every tensor, as far as known."""
    graph = model.graph
    # Weights are external, or empty: their numbers take no part.
    values = {
        value.name: numpy_helper.to_array(value)
        for value in graph.initializer
        if value.data_location != TensorProto.EXTERNAL and value.data_type == TensorProto.INT64
    }
    floats = {
        value.name: numpy_helper.to_array(value)
        for value in graph.initializer
        if value.data_location != TensorProto.EXTERNAL and value.data_type == TensorProto.FLOAT
    }
    values.update({name: number for name, number in floats.items() if number.size <= 8})
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
    _drop_unread(graph)
    return shapes


def _constant(
    node: Any, values: Values, shapes: dict[str, list[int | str]], makers: dict[str, Any]
) -> NDArray[Any] | None:
    """What a node gives, where constants and known sizes decide it."""
    if node.op_type == "Gather" and node.input[0] in makers and makers[node.input[0]].op_type == "Shape":
        shape = shapes.get(makers[node.input[0]].input[0], [])
        if node.input[1] in values and values[node.input[1]].size == 1:
            axis = int(values[node.input[1]].item())
            size = shape[axis] if axis < len(shape) else 0
            return (
                np.full(values[node.input[1]].shape, size, np.int64)
                if isinstance(size, int) and size
                else None
            )
    if node.op_type == "Constant":
        return np.asarray(numpy_helper.to_array(node.attribute[0].t))
    if not node.input or not all(name in values or not name for name in node.input):
        return None
    feeds = {name: values[name] for name in node.input if name}
    return np.asarray(ReferenceEvaluator(node).run(None, feeds)[0])


def _drop_unread(graph: Any) -> None:
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(list(graph.node)):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    initializers = [value for value in graph.initializer if value.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(initializers)


def _crop_by_padding(graph: Any, shapes: dict[str, list[int | str]]) -> None:
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
        for reader in readers[last]:
            reader.input[:] = [node.output[0] if name == last else name for name in reader.input]
        while last != node.output[0]:
            crop = makers[last]
            graph.node.remove(crop)
            last = crop.input[0]


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


def _require_weights(model: Any, weights: Values) -> None:
    for value in model.graph.initializer:
        if value.data_location != TensorProto.EXTERNAL:
            continue
        found = weights.get(value.name)
        if found is None or list(found.shape) != list(value.dims):
            what = "is missing" if found is None else f"is {found.shape}, expected {tuple(value.dims)}"
            raise ModelError(f"{WEIGHTS_FILE} does not fit its {NETWORK_FILE}: {value.name} {what}")
        if found.dtype.kind != "f":
            raise ModelError(
                f"{WEIGHTS_FILE}: {value.name} is of {found.dtype}, expected floating-point numbers"
            )
        if not np.isfinite(found).all():
            raise ModelError(f"{WEIGHTS_FILE}: {value.name} holds what is not a number, or infinite")
        if value.name.endswith("running_var") and (found < 0).any():
            raise ModelError(f"{WEIGHTS_FILE}: {value.name} holds a negative variance")


def _fold_normalisation(node: Any, values: Values, spec: ModelSpec) -> None:
    """Let a convolution over normalised RGB take BGR pixels less their rounded mean: there is less to compute."""
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
        epsilon = next(a.f for a in norm.attribute if a.name == "epsilon")
        gamma, beta, mean, variance = (values[name] for name in norm.input[1:])
        deviation = np.sqrt(variance + np.float32(epsilon))
        scale = gamma / deviation
        weight = values[node.input[1]]
        bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(scale), np.float32)
        side = (1, -1, 1, 1) if node.op_type == "ConvTranspose" else (-1, 1, 1, 1)
        _give_own(values, node, 1, weight * scale.reshape(side))
        _give_own(values, node, 2, (bias - mean) * scale + beta)
        network.nodes.remove(norm)
        for reader in network.nodes:
            reader.input[:] = [node.output[0] if name == norm.output[0] else name for name in reader.input]


def _give_own(values: Values, node: Any, place: int, number: NDArray[Any]) -> None:
    """Let a node read a number of its own: weights may be shared."""
    name = f"{node.name}|{'weight' if place == 1 else 'bias'}"
    values[name] = np.ascontiguousarray(number, np.float32)
    if place < len(node.input):
        node.input[place] = name
    else:
        node.input.append(name)


def _read(path: Path) -> Any:
    try:
        require_file(path, _MAX_BYTES)
        model = onnx.load(str(path), load_external_data=False)
        if [value.name for value in (*model.graph.input, *model.graph.output)] != [IMAGE, LOGITS]:
            raise ValueError(f"expected input {IMAGE} and output {LOGITS}")
    except Exception as error:  # protobuf has its own kinds
        raise ModelError(f"{path} is not readable ({error}): copy the whole model folder again") from error
    return model


def _metadata(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _mean_inputs(model: Any) -> dict[str, NDArray[np.float32]]:
    return {
        key.removeprefix(_MEAN_INPUT): np.frombuffer(base64.b64decode(value), np.float32)
        for key, value in _metadata(model).items()
        if key.startswith(_MEAN_INPUT)
    }


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
        value.CopyFrom(
            TensorProto(
                name=value.name,
                dims=value.dims,
                data_type=TensorProto.FLOAT16 if half else value.data_type,
                data_location=TensorProto.EXTERNAL,
            )
        )
        for key, text in (
            ("location", weights.name),
            ("offset", 8 + length + begin),
            ("length", end - begin),
        ):
            value.external_data.add(key=key, value=str(text))
        if half:
            wide = f"{value.name}|float"
            for node in model.graph.node:
                node.input[:] = [wide if name == value.name else name for name in node.input]
            casts.append(helper.make_node("Cast", [value.name], [wide], wide, to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def describe(model: Any, made_for: str, mean_inputs: dict[str, NDArray[np.float32]]) -> None:
    """Write the metadata of a network file: its ``identity``, and what rounding takes."""
    helper.set_model_props(
        model,
        {
            _IDENTITY: made_for,
            **{
                _MEAN_INPUT + name: base64.b64encode(mean.astype(np.float32).tobytes()).decode()
                for name, mean in mean_inputs.items()
            },
        },
    )


def as_initializers(values: Values, nodes: Iterable[Any]) -> list[Any]:
    """onnx.TensorProto of the values that the nodes read."""
    read = {name for node in nodes for name in node.input}
    return [numpy_helper.from_array(number, name) for name, number in values.items() if name in read]
