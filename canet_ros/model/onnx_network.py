# SPDX-License-Identifier: Apache-2.0
"""An imported ONNX network as a deployment graph: uint8 images in, class ids and confidence out.

Pre- and post-processing are ONNX operators of the model's own opset, written here node by node without PyTorch. Logits
are upsampled with all their classes: ``UpsampledArgmax``, which takes only the best few of each cell, is verified
for our own networks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper

from canet_ros.model.model_folder import MODEL_FILE, ModelError, ModelSpec, Resolution
from canet_ros.model.onnx_file import opset_of, read_onnx
from canet_ros.model.onnx_graph import Nodes, live_nodes, names_read, subgraphs
from canet_ros.model.onnx_interface import INPUT, OUTPUTS, OnnxInterface, words
from canet_ros.model.onnx_runner import onnx_runner

_NETWORK = "network/"  # prefix of every name of the imported graph, so that none collides with ours
UNKNOWN_CLASS = 255  # for ids that the class table does not have


def write_onnx_network(folder: Path, spec: ModelSpec, resolution: Resolution, path: Path) -> None:
    """Compose a model's graph at a resolution.

    Raises:
        ModelError: the file is broken or refused, or does not fit what model.yaml says.
    """
    assert spec.onnx is not None
    network = read_onnx(folder / MODEL_FILE)
    try:
        composed = deployment_graph(network, spec.onnx, len(spec.classes), resolution, spec.temperature)
    except ModelError as error:
        raise ModelError(f"{folder / MODEL_FILE}: {error}") from error
    onnx.save(composed, str(path))


def deployment_graph(
    network: Any,
    interface: OnnxInterface,
    classes: int,
    resolution: Resolution,
    temperature: float = 1.0,
) -> Any:
    """The deployment graph (onnx.ModelProto): (B, h, w, 3) BGR uint8 to mask and confidence (B, h, w) uint8.

    Raises:
        ModelError: the network does not take the resolution, or does not give the classes.
    """
    width, height = resolution
    graph = _Graph(network, interface, resolution)
    if interface.gives == "ids":
        results = _upsampled_ids(graph, classes, resolution)
    else:
        results = _upsampled_classes(graph, classes, resolution, temperature)
    return graph.model(dict(zip(OUTPUTS, results)), TensorProto.UINT8, (height, width))


def pixels_to_logits(network: Any, interface: OnnxInterface, classes: int, resolution: Resolution) -> Any:
    """The graph up to logits (B, classes, h', w') float32, of the network's own stride; of probabilities, their log.

    Raises:
        ModelError: as ``deployment_graph``; the network gives ids.
    """
    if interface.gives == "ids":
        raise ModelError("the network returns class ids only, no logits")
    graph = _Graph(network, interface, resolution)
    logits = _planes(graph, classes)
    if interface.gives == "probabilities":
        logits = graph.add("Log", graph.add("Max", logits, np.array(1e-7, np.float32)))
    return graph.model({"logits": logits}, TensorProto.FLOAT, (None, None, None))


def pixels_to_output(network: Any, interface: OnnxInterface, resolution: Resolution) -> Any:
    """The graph up to the network's output, as float32."""
    graph = _Graph(network, interface, resolution)
    output = graph.add("Cast", graph.output, to=TensorProto.FLOAT)
    return graph.model({"output": output}, TensorProto.FLOAT, None)


class _Graph:
    """Images, normalised as the network wants them, and the network.

    Attributes:
        add: adds nodes after it.
        output: name of what the network gives.
        shape: of that; the first dimension is the batch, or 1 where it is free.
    """

    def __init__(self, network: Any, interface: OnnxInterface, resolution: Resolution) -> None:
        self.interface = interface
        self._resolution = resolution
        self._network = _fixed(network, interface, resolution)
        self.shape = _output_shape(self._network)
        kind = self._network.graph.input[0].type.tensor_type.elem_type
        _rename(self._network.graph)
        self.add = Nodes(opset_of(network))
        self.add.scope = "/pixels"
        pixels = _network_input(self.add, interface, kind)
        taken = helper.make_node("Identity", [pixels], [_NETWORK + interface.input])
        self.add.nodes += [taken, *self._network.graph.node]
        self.add.scope = "/classes"
        self.output = _NETWORK + interface.output

    def model(self, outputs: dict[str, str], kind: int, shape: Sequence[int | None] | None) -> Any:
        """All of it, with names for what comes out; ``shape`` is that after the batch, None if unknown."""
        network = self._network.graph
        ends = [helper.make_node("Identity", [name], [output]) for output, name in outputs.items()]
        batch = "batch" if self.interface.free_batch else 1
        width, height = self._resolution
        graph = helper.make_graph(
            live_nodes([*self.add.nodes, *ends], outputs),
            "pixels_to_classes",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, height, width, 3])],
            [
                helper.make_tensor_value_info(name, kind, None if shape is None else [batch, *shape])
                for name in outputs
            ],
            [*network.initializer, *self.add.constants],
            sparse_initializer=list(network.sparse_initializer),
        )
        # Converters name domains also where no operator is of them.
        versions = [entry for entry in self._network.opset_import if entry.domain == "ai.onnx.ml"]
        versions.append(helper.make_opsetid("", self.add.opset))
        return helper.make_model(
            graph,
            opset_imports=versions,
            ir_version=min(self._network.ir_version, helper.find_min_ir_version_for(versions)),
            producer_name="canet_ros",
        )


def _rename(graph: Any) -> None:
    """Prefix every name, those of the graphs within it too: ``onnx.compose`` forgets weights that only those read."""
    for node in graph.node:
        node.name = _NETWORK + node.name if node.name else ""
        for names in (node.input, node.output):
            names[:] = [_NETWORK + name if name else "" for name in names]
        for inner in subgraphs(node):
            _rename(inner)
    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = _NETWORK + named.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = _NETWORK + sparse.values.name
    del graph.value_info[:]


def graph_inputs(network: Any) -> list[Any]:
    """What must be fed: inputs that no initialiser gives a value."""
    given = {tensor.name for tensor in network.graph.initializer}
    return [value for value in network.graph.input if value.name not in given]


def _fixed(network: Any, interface: OnnxInterface, resolution: Resolution) -> Any:
    """A copy whose one input has the sizes that it will have, with one output and the nodes that it needs."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network)
    graph = fixed.graph
    inputs = {value.name: value for value in graph_inputs(fixed)}
    outputs = {value.name: value for value in graph.output}
    for what, name, known in (("input", interface.input, inputs), ("output", interface.output, outputs)):
        if name not in known:
            raise ModelError(f"the graph has no {what} {name!r}, only {', '.join(known)}")
    taken, given = inputs[interface.input], outputs[interface.output]
    width, height = resolution
    sides = [3, height, width] if interface.input_layout == "NCHW" else [height, width, 3]
    wanted = [None if interface.free_batch else 1, *sides]
    dims = taken.type.tensor_type.shape.dim
    found = [dim.dim_value or None for dim in dims]
    if len(dims) != 4 or any(have and want and have != want for have, want in zip(found, wanted)):
        raise ModelError(
            f"the input {taken.name!r} is {words(found)}, but should be {words(wanted)} "
            f"({interface.input_layout}) for {width}x{height}"
        )
    for dim, size in zip(dims, wanted):
        dim.CopyFrom(
            onnx.TensorShapeProto.Dimension(**({"dim_value": size} if size else {"dim_param": "batch"}))
        )
    # Sizes that the exporter wrote down may be of another size of the input.
    given.type.tensor_type.ClearField("shape")
    nodes = live_nodes(graph.node, [given.name])
    used = {name for node in nodes for name in names_read(node)} | {given.name}
    if others := [name for name in inputs if name in used and name != taken.name]:
        raise ModelError(
            f"the output {given.name!r} takes the inputs {', '.join(others)} beside {taken.name!r}: an image is all "
            "there is"
        )
    # Inputs with an initialiser, as older exporters write all weights, are constants from here on.
    del graph.value_info[:], graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(taken)
    graph.output.append(given)
    return fixed


def _output_shape(network: Any) -> list[int]:
    """Shape of what the network gives for one image, as ONNX infers it; where it cannot, as found by running it."""
    one = onnx.ModelProto()
    one.CopyFrom(network)
    (taken,) = one.graph.input
    taken.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(one, data_prop=True)
        dims = [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim]
    except Exception:  # what stops it may still run
        dims = []
    if dims and all(dims):
        return dims
    kind = helper.tensor_dtype_to_np_dtype(taken.type.tensor_type.elem_type)
    shape = [dim.dim_value for dim in taken.type.tensor_type.shape.dim]
    return list(onnx_runner(one)({taken.name: np.zeros(shape, kind)}).shape)


def _network_input(add: Nodes, interface: OnnxInterface, kind: int) -> str:
    """Images (B, h, w, 3) BGR uint8 as the network wants them."""
    planes = INPUT
    std = np.array(interface.std, np.float64)
    factor, offset = interface.scale / std, -np.array(interface.mean, np.float64) / std
    if interface.color == "rgb":
        planes = add("Gather", planes, np.array([2, 1, 0]), axis=3)
    side: tuple[int, ...] = (1, 1, 1, 3)
    if interface.input_layout == "NCHW":
        planes = add("Transpose", planes, perm=[0, 3, 1, 2])
        side = (1, 3, 1, 1)
    if (factor != 1).any() or offset.any():
        planes = add("Cast", planes, to=TensorProto.FLOAT)
        planes = add("Mul", planes, factor.astype(np.float32).reshape(side))
        planes = add("Add", planes, offset.astype(np.float32).reshape(side))
    return add("Cast", planes, to=kind)


def _planes(graph: _Graph, classes: int) -> str:
    """What the network gives, as float planes (B, classes, h', w')."""
    add, interface = graph.add, graph.interface
    channels, (width, height) = channels_and_size(graph.shape, interface.output_layout)
    planes = add("Cast", graph.output, to=TensorProto.FLOAT)
    if len(graph.shape) != 4:
        planes = add("Reshape", planes, np.array([-1, 1, height, width]))
    elif interface.output_layout == "NHWC":
        planes = add("Transpose", planes, perm=[0, 3, 1, 2])
    if channels == classes:
        return planes
    if (channels, classes) != (1, 2):
        raise ModelError(
            f"the output {interface.output!r} has {channels} channels, the class table {classes} classes: give the "
            "classes that the network was trained on"
        )
    # One channel for two classes: how much it is the second.
    if interface.gives == "logits":
        return add("Mul", planes, np.array([-0.5, 0.5], np.float32).reshape(1, 2, 1, 1))
    return add("Concat", add("Sub", np.array(1, np.float32), planes), planes, axis=1)


def channels_and_size(shape: Sequence[int], layout: str) -> tuple[int, Resolution]:
    """Channels and (width, height) of logits or probabilities; without the dimension of channels it is one.

    Raises:
        ModelError: they are not an image.
    """
    if len(shape) != 4:
        height, width = sides_of_ids(shape)
        return 1, (width, height)
    height, width, channels = shape[1:] if layout == "NHWC" else (*shape[2:], shape[1])
    return channels, (width, height)


def _upsampled_classes(
    graph: _Graph, classes: int, resolution: Resolution, temperature: float
) -> tuple[str, str]:
    """Class ids and confidence: bilinear to full size (half-pixel centres), then argmax and softmax."""
    add = graph.add
    size = channels_and_size(graph.shape, graph.interface.output_layout)[1]
    planes = _resized(add, _planes(graph, classes), size, resolution, classes)
    if graph.interface.gives == "logits":
        return mask_and_confidence(add, planes, temperature)
    return _in_bytes(add, planes, add.reduce("ReduceMax", planes, keepdims=0))


def mask_and_confidence(add: Nodes, logits: str, temperature: float) -> tuple[str, str]:
    """Class ids and softmax of the best class, (B, H, W) uint8 each, of logits (B, classes, H, W)."""
    below = add("Sub", logits, add.reduce("ReduceMax", logits, keepdims=1))
    if temperature != 1:
        below = add("Div", below, np.array(temperature, np.float32))
    share = add("Reciprocal", add.reduce("ReduceSum", add("Exp", below), keepdims=0))
    return _in_bytes(add, logits, share)


def _in_bytes(add: Nodes, planes: str, share: str) -> tuple[str, str]:
    mask = add("Cast", add("ArgMax", planes, axis=1, keepdims=0), to=TensorProto.UINT8)
    share = add("Add", add("Mul", share, np.array(255, np.float32)), np.array(0.5, np.float32))
    # Not 0, which marks NaN.
    share = add("Clip", share, np.array(1, np.float32), np.array(255, np.float32))
    return mask, add("Cast", share, to=TensorProto.UINT8)


def _resized(
    add: Nodes, planes: str, size: Resolution, wanted: Resolution, channels: int, mode: str = "linear"
) -> str:
    if size == wanted:
        return planes
    batch = add("Slice", add("Shape", planes), np.array([0]), np.array([1]))
    sizes = add("Concat", batch, np.array([channels, wanted[1], wanted[0]]), axis=0)
    nothing: str | NDArray[Any] = "" if add.opset >= 13 else np.zeros(0, np.float32)  # optional since
    how = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        how["nearest_mode"] = "round_prefer_ceil"
    return add("Resize", planes, nothing, nothing, sizes, **how)


def _upsampled_ids(graph: _Graph, classes: int, resolution: Resolution) -> tuple[str, str]:
    """Ids of any type and rank to ids of the class table, or ``UNKNOWN_CLASS``, and 255 as confidence."""
    add, sides = graph.add, sides_of_ids(graph.shape)
    width, height = resolution
    numbers = add("Cast", graph.output, to=TensorProto.FLOAT)
    zero, most = np.array(0, np.float32), np.array(classes - 0.5, np.float32)
    known = add("And", add("Less", numbers, most), add("Not", add("Less", numbers, zero)))
    numbers = add("Where", known, numbers, np.array(UNKNOWN_CLASS, np.float32))
    planes = add("Reshape", numbers, np.array([-1, 1, *sides]))
    planes = _resized(add, planes, (sides[1], sides[0]), resolution, 1, "nearest")
    mask = add("Cast", add("Reshape", planes, np.array([-1, height, width])), to=TensorProto.UINT8)
    # Made of the mask, so that it has as many images.
    sure = add("Add", add("Mul", planes, zero), np.array(255, np.float32))
    sure = add("Reshape", sure, np.array([-1, height, width]))
    return mask, add("Cast", sure, to=TensorProto.UINT8)


def sides_of_ids(shape: Sequence[int]) -> list[int]:
    """Height and width of class ids of any rank.

    Raises:
        ModelError: they are not an image.
    """
    sides = [side for side in (shape[1:] if len(shape) > 2 else shape) if side != 1]
    if len(sides) != 2:
        raise ModelError(f"the output is {words(shape)}: class ids are (B, H, W) or (B, 1, H, W)")
    return sides
