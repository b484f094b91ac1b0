# SPDX-License-Identifier: Apache-2.0
"""A network that is not ours between our own ends, in one graph: uint8 images in, class ids and confidence out.

The ends are ONNX operators of the model's own opset, written here node by node: composing takes no PyTorch, and the
result is what every engine reads. Logits go to full size with all their classes (``ClassesAtFullSize``, which takes
only the best few of each cell there, holds for trained networks; of others we know nothing).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from canet_ros.errors import in_one_line
from canet_ros.model.model_folder import MODEL_FILE, ModelError, ModelSpec, Resolution
from canet_ros.model.onnx_file import names_read, opset_of, read_onnx, subgraphs
from canet_ros.model.onnx_interface import INPUT, OUTPUTS, OnnxInterface

_NETWORK = "network/"  # before every name of the user's graph, so that none is one of ours
UNKNOWN_CLASS = 255  # where a network gives an id that its class table does not have
# Operators whose attribute ``axes`` became an input, and the opset where it did.
_AXES_ARE_INPUT = {"ReduceSum": 13, "ReduceMax": 18}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def write_onnx_network(folder: Path, spec: ModelSpec, resolution: Resolution, path: Path) -> None:
    """Compose a model's graph at a resolution.

    Raises:
        ModelError: the file is broken or refused, or does not fit what model.yaml says.
    """
    assert spec.onnx is not None
    network = read_onnx(folder / MODEL_FILE)
    try:
        composed = pixels_to_classes(network, spec.onnx, len(spec.classes), resolution, spec.temperature)
    except ModelError as error:
        raise ModelError(f"{folder / MODEL_FILE}: {error}") from error
    onnx.save(composed, str(path))


def pixels_to_classes(
    network: Any,
    interface: OnnxInterface,
    classes: int,
    resolution: Resolution,
    temperature: float = 1.0,
) -> Any:
    """The whole graph (onnx.ModelProto): (B, h, w, 3) BGR uint8 to mask and confidence (B, h, w) uint8.

    Raises:
        ModelError: the network does not take the resolution, or does not give the classes.
    """
    width, height = resolution
    graph = _Graph(network, interface, resolution)
    shape = graph.shape
    if interface.gives == "ids":
        mask, confidence = _ids_at_full_size(graph.add, graph.output, shape, classes, resolution)
    else:
        planes = _planes(graph.add, graph.output, interface, shape, classes)
        mask, confidence = _classes_at_full_size(
            graph.add, planes, interface, shape, classes, resolution, temperature
        )
    return graph.model({OUTPUTS[0]: mask, OUTPUTS[1]: confidence}, TensorProto.UINT8, (height, width))


def pixels_to_logits(network: Any, interface: OnnxInterface, classes: int, resolution: Resolution) -> Any:
    """The graph up to logits (B, classes, h', w') float32, of the network's own stride; of probabilities, their log.

    Raises:
        ModelError: as ``pixels_to_classes``; the network gives ids.
    """
    if interface.gives == "ids":
        raise ModelError("the network gives class ids alone, and no logits")
    graph = _Graph(network, interface, resolution)
    logits = _planes(graph.add, graph.output, interface, graph.shape, classes)
    if interface.gives == "probabilities":
        logits = graph.add("Log", graph.add("Max", logits, np.array(1e-7, np.float32)))
    return graph.model({"logits": logits}, TensorProto.FLOAT, (None, None, None))


def pixels_to_output(network: Any, interface: OnnxInterface, resolution: Resolution) -> Any:
    """The graph up to whatever the network gives, as float32."""
    graph = _Graph(network, interface, resolution)
    output = graph.add("Cast", graph.output, to=TensorProto.FLOAT)
    return graph.model({"output": output}, TensorProto.FLOAT, None)


class Nodes:
    """Adds nodes of one scope; NumPy arrays among the inputs become constants. Gives the name of the result."""

    def __init__(self, opset: int) -> None:
        self.scope = ""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opset = opset

    def __call__(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        name = f"{self.scope}/{operator}_{len(self.nodes)}"
        names = []
        for index, value in enumerate(inputs):
            if isinstance(value, np.ndarray):
                self.constants.append(numpy_helper.from_array(value, f"{name}_constant_{index}"))
                value = self.constants[-1].name
            names.append(value)
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


class _Graph:
    """Images, normalised as the network wants them, and the network.

    Attributes:
        add: adds nodes after it.
        output: name of what the network gives.
        shape: of that; the first dimension is the batch, or 1 where it is free.
    """

    def __init__(self, network: Any, interface: OnnxInterface, resolution: Resolution) -> None:
        self._opset = opset_of(network)
        self._resolution = resolution
        self._batch = None if interface.free_batch else 1
        taken = _fixed_input(network, interface, resolution, self._batch)
        self.shape = _output_shape(taken, interface)
        kind = _input(taken, interface).type.tensor_type.elem_type
        _rename(taken.graph)
        self._network = taken
        self._interface = interface
        self.add = Nodes(self._opset)
        self.add.scope = "/pixels"
        self._input = _network_input(self.add, interface, kind)
        self._before = len(self.add.nodes)
        self.add.scope = "/classes"
        self.output = _NETWORK + interface.output

    def model(self, outputs: dict[str, str], kind: int, shape: Sequence[int | None] | None) -> Any:
        """All of it, with names for what comes out; ``shape`` is that after the batch, None if unknown."""
        network = self._network.graph
        nodes = [
            *self.add.nodes[: self._before],
            helper.make_node("Identity", [self._input], [_NETWORK + self._interface.input]),
            *network.node,
            *self.add.nodes[self._before :],
            *(helper.make_node("Identity", [name], [output]) for output, name in outputs.items()),
        ]
        batch = self._batch or "batch"
        width, height = self._resolution
        graph = helper.make_graph(
            _needed(nodes, list(outputs)),
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
        versions.append(helper.make_opsetid("", self._opset))
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


def _input(network: Any, interface: OnnxInterface) -> Any:
    inputs = {value.name: value for value in graph_inputs(network)}
    if interface.input not in inputs:
        raise ModelError(f"the graph has no input {interface.input!r}, only {', '.join(inputs)}")
    return inputs[interface.input]


def graph_inputs(network: Any) -> list[Any]:
    """What must be fed: inputs that no initialiser gives a value."""
    given = {tensor.name for tensor in network.graph.initializer}
    return [value for value in network.graph.input if value.name not in given]


def _fixed_input(network: Any, interface: OnnxInterface, resolution: Resolution, batch: int | None) -> Any:
    """A copy whose input has the sizes that it will have, and whose nodes are those that the output needs."""
    width, height = resolution
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network)
    value = _input(fixed, interface)
    if interface.output not in {output.name for output in fixed.graph.output}:
        known = ", ".join(output.name for output in fixed.graph.output)
        raise ModelError(f"the graph has no output {interface.output!r}, only {known}")
    wanted = [batch, 3, height, width] if interface.input_layout == "NCHW" else [batch, height, width, 3]
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ModelError(
            f"the input {value.name!r} has {len(dims)} dimensions, an image has 4: B, C, H and W"
        )
    found = [dim.dim_value or None for dim in dims]
    if any(have and want and have != want for have, want in zip(found, wanted)):
        raise ModelError(
            f"the input {value.name!r} is {words(found)}, and would have to take {words(wanted)} "
            f"({interface.input_layout}) for {width}x{height}"
        )
    for dim, size in zip(dims, wanted):
        dim.Clear()
        if size:
            dim.dim_value = size
        else:
            dim.dim_param = "batch"
    # Sizes that the exporter wrote down may be of another size of the input.
    del fixed.graph.value_info[:]
    kept = [output for output in fixed.graph.output if output.name == interface.output]
    del fixed.graph.output[:]
    fixed.graph.output.extend(kept)
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    nodes = _needed(list(fixed.graph.node), [interface.output])
    del fixed.graph.node[:]
    fixed.graph.node.extend(nodes)
    used = {name for node in nodes for name in names_read(node)} | {interface.output}
    others = [other.name for other in graph_inputs(fixed) if other.name in used and other.name != value.name]
    if others:
        raise ModelError(
            f"the output {interface.output!r} takes the inputs {', '.join(others)} beside {value.name!r}: an image "
            "is all there is"
        )
    # Inputs with an initialiser, as older exporters write all weights, are constants from here on.
    del fixed.graph.input[:]
    fixed.graph.input.append(value)
    return fixed


def _needed(nodes: list[Any], outputs: Sequence[str]) -> list[Any]:
    """The nodes that the outputs depend on, each after those that it depends on."""
    producers = {name: node for node in nodes for name in node.output}
    ordered: list[Any] = []
    done: set[str] = set()
    open_names = list(outputs)
    while open_names:
        node = producers.get(open_names[-1])
        if node is None or open_names[-1] in done:
            open_names.pop()
        elif before := [name for name in names_read(node) if name in producers and name not in done]:
            open_names += before
        else:
            ordered.append(node)
            done.update(node.output)
    return ordered


def _output_shape(network: Any, interface: OnnxInterface) -> list[int]:
    """Shape of what the network gives for one image, as ONNX infers it; where it cannot, as found by running it."""
    one = onnx.ModelProto()
    one.CopyFrom(network)
    one.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(one, data_prop=True)
        dims = [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim]
    except Exception:  # what stops it may still run
        dims = []
    if dims and all(dims):
        return dims
    value = network.graph.input[0].type.tensor_type
    kind = helper.tensor_dtype_to_np_dtype(value.elem_type)
    shape = [dim.dim_value or 1 for dim in value.shape.dim]
    return list(run_onnx(one, {interface.input: np.zeros(shape, kind)}).shape)


def run_onnx(model: Any, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """What a model's only output is; raises as ``onnx_runner``."""
    return onnx_runner(model)(feeds)


def onnx_runner(model: Any) -> Callable[[dict[str, NDArray[Any]]], NDArray[Any]]:
    """Runs a model of one output in fp32 on the CPU: in ONNX Runtime, or else in OpenVINO.

    Raises:
        ModelError: it does not run.
        ModuleNotFoundError: neither is installed.
    """
    content = model.SerializeToString()
    try:
        if importlib.util.find_spec("onnxruntime") is not None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            run = partial(session.run, None)
        else:
            from canet_ros.model.openvino_core import openvino_core

            core = openvino_core()
            compiled = core.compile_model(
                core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
            run = compiled.create_infer_request().infer
    except ModuleNotFoundError:
        raise
    except Exception as error:  # engines raise what they please
        raise ModelError(f"the graph does not run: {in_one_line(error)}") from error

    def output(feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            return np.array(run(feeds)[0])
        except Exception as error:
            raise ModelError(f"the graph does not run: {in_one_line(error)}") from error

    return output


def _network_input(add: Nodes, interface: OnnxInterface, kind: int) -> str:
    """Images (B, h, w, 3) BGR uint8 as the network wants them."""
    order = [0, 1, 2] if interface.color == "bgr" else [2, 1, 0]
    planes = INPUT
    factor = interface.scale / np.array(interface.std, np.float64)
    offset = -np.array(interface.mean, np.float64) / np.array(interface.std, np.float64)
    as_they_are = bool((factor == 1).all() and not offset.any())
    if order[0]:
        planes = add("Gather", planes, np.array(order), axis=3)
    if interface.input_layout == "NCHW":
        planes = add("Transpose", planes, perm=[0, 3, 1, 2])
    if not as_they_are:
        side = (1, 3, 1, 1) if interface.input_layout == "NCHW" else (1, 1, 1, 3)
        planes = add("Cast", planes, to=TensorProto.FLOAT)
        planes = add("Mul", planes, factor.astype(np.float32).reshape(side))
        planes = add("Add", planes, offset.astype(np.float32).reshape(side))
    return add("Cast", planes, to=kind)


def _planes(add: Nodes, output: str, interface: OnnxInterface, shape: Sequence[int], classes: int) -> str:
    """What the network gives, as float planes (B, classes, h', w')."""
    channels, (width, height) = channels_and_size(shape, interface.output_layout)
    planes = add("Cast", output, to=TensorProto.FLOAT)
    if len(shape) != 4:
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


def _classes_at_full_size(
    add: Nodes,
    planes: str,
    interface: OnnxInterface,
    shape: Sequence[int],
    classes: int,
    resolution: Resolution,
    temperature: float,
) -> tuple[str, str]:
    """Planes to class ids and confidence: bilinear to full size (half-pixel centres), then argmax and softmax."""
    planes = _resized(add, planes, channels_and_size(shape, interface.output_layout)[1], resolution, classes)
    mask = add("Cast", add("ArgMax", planes, axis=1, keepdims=0), to=TensorProto.UINT8)
    if interface.gives == "probabilities":
        share = add.reduce("ReduceMax", planes, keepdims=0)
    else:
        best = add.reduce("ReduceMax", planes, keepdims=1)
        below = add("Sub", planes, best)
        if temperature != 1:
            below = add("Div", below, np.array(temperature, np.float32))
        total = add.reduce("ReduceSum", add("Exp", below), keepdims=0)
        share = add("Reciprocal", total)
    share = add("Add", add("Mul", share, np.array(255, np.float32)), np.array(0.5, np.float32))
    # Not 0, which says that a number is none.
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


def _ids_at_full_size(
    add: Nodes, ids: str, shape: Sequence[int], classes: int, resolution: Resolution
) -> tuple[str, str]:
    """Ids of any type and rank to ids of the class table, or ``UNKNOWN_CLASS``, and 255 as confidence."""
    sides = sides_of_ids(shape)
    width, height = resolution
    numbers = add("Cast", ids, to=TensorProto.FLOAT)
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
        ModelError: they are no image.
    """
    sides = [side for side in (shape[1:] if len(shape) > 2 else shape) if side != 1]
    if len(sides) != 2:
        raise ModelError(f"the output is {words(shape)}: class ids are (B, H, W) or (B, 1, H, W)")
    return sides


def words(shape: Sequence[int | None]) -> str:
    """A shape for people: (?, 3, 480, 360)."""
    return f"({', '.join(str(side or '?') for side in shape)})"


def is_float(kind: int) -> bool:
    """Whether an ONNX type is one of floating-point numbers."""
    return kind in _FLOATS
