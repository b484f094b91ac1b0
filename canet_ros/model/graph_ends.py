# SPDX-License-Identifier: Apache-2.0
"""The deployment graph of our own networks as ONNX: uint8 images in, class ids and confidence out.

The operations of ``deployment_module``, which explains them, written node by node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from canet_ros.model.model_folder import ModelSpec, Resolution
from canet_ros.model.network_graph import IMAGE, LOGITS, Network, as_initializers, pixel_offset
from canet_ros.model.onnx_graph import Nodes
from canet_ros.model.onnx_interface import INPUT, OPSET, OUTPUTS
from canet_ros.model.onnx_network import mask_and_confidence

_CANDIDATES = 3


def deployment_model(network: Network, spec: ModelSpec, resolution: Resolution) -> Any:
    """The graph (onnx.ModelProto): (B, h, w, 3) BGR uint8 to mask and confidence, (B, h, w) uint8 each; B is free."""
    width, height = resolution
    add = Nodes(OPSET)
    _, rows, columns = network.shape
    before = _pixels(add, spec, resolution)
    add.scope = "/classes"
    logits = add("Cast", LOGITS, to=TensorProto.FLOAT)
    if rows >= height and columns >= width:
        results = mask_and_confidence(add, logits, spec.temperature)
    else:
        stride = next(
            stride for stride in (2, 4, 8, 16, 32) if stride * rows >= height and stride * columns >= width
        )
        if spec.temperature != 1:
            logits = add("Mul", logits, np.array(1 / spec.temperature, np.float32))
        results = _upsampled_argmax(add, logits, network.shape, resolution, stride)
    ends = [
        helper.make_node("Identity", [name], [output], f"/classes/{output}")
        for name, output in zip(results, OUTPUTS)
    ]
    nodes = [*before, *network.nodes, *add.nodes, *ends]
    graph = helper.make_graph(
        nodes,
        "pixels_to_classes",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", height, width])
            for name in OUTPUTS
        ],
        [*as_initializers(network.values, nodes), *add.constants],
    )
    versions = [helper.make_opsetid("", OPSET)]
    return helper.make_model(
        graph,
        opset_imports=versions,
        ir_version=helper.find_min_ir_version_for(versions),
        producer_name="canet_ros",
    )


def _pixels(add: Nodes, spec: ModelSpec, resolution: Resolution) -> list[Any]:
    """Images to the network's input; the nodes, under names that int8 scales refer to."""
    width, height = resolution
    # In rows of numbers: subtracted from pixels, channels first, OpenVINO copies the image three times.
    rows = add.constant("/rows", np.array([-1, height, 3 * width]))
    offset = add.constant("/offset", np.tile(pixel_offset(spec), width))
    shape = add.constant("/shape", np.array([-1, height, width, 3]))
    return [
        helper.make_node("Reshape", [INPUT, rows], ["/Reshape_output_0"], "/Reshape"),
        helper.make_node("Cast", ["/Reshape_output_0"], ["/Cast_output_0"], "/Cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["/Cast_output_0", offset], ["/Sub_output_0"], "/Sub"),
        helper.make_node("Reshape", ["/Sub_output_0", shape], ["/Reshape_1_output_0"], "/Reshape_1"),
        helper.make_node("Transpose", ["/Reshape_1_output_0"], [IMAGE], "/Transpose", perm=[0, 3, 1, 2]),
    ]


def _upsampled_argmax(
    add: Nodes, logits: str, shape: tuple[int, int, int], resolution: Resolution, stride: int
) -> tuple[str, str]:
    """``UpsampledArgmax``: bilinear upsampling, softmax and argmax, of the best few classes of each cell."""
    classes, rows, columns = shape
    width, height = resolution
    candidates = min(_CANDIDATES, classes)
    weights = ((np.arange(stride) + 0.5) / stride).astype(np.float32)

    def part(tensor: str, axis: int, start: int, end: int) -> str:
        return add("Slice", tensor, np.array([start]), np.array([end]), np.array([axis]))

    logits = add("Reshape", logits, np.array([-1, classes, rows * columns]))
    logits = add("Sub", logits, add.reduce("ReduceMax", logits, keepdims=1))
    planes = add("Concat", logits, add.reduce("ReduceSum", add("Exp", logits), keepdims=1), axis=1)

    peaks = add("Reshape", logits, np.array([-1, classes, rows, columns]))
    peaks = add("Pad", peaks, np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="edge")
    peaks = add("Max", part(peaks, 2, 0, rows + 1), part(peaks, 2, 1, rows + 2))
    peaks = add("Max", part(peaks, 3, 0, columns + 1), part(peaks, 3, 1, columns + 2))
    peaks = add("Reshape", peaks, np.array([-1, classes, (rows + 1) * (columns + 1)]))
    ids = add.second("TopK", peaks, np.array([candidates]), axis=1)

    batch = add("Gather", add("Shape", LOGITS), np.array(0), axis=0)
    image = add("Reshape", add("Range", np.array(0), batch, np.array(1)), np.array([-1, 1, 1]))
    total = add("Add", add("Mul", part(ids, 1, 0, 1), np.array(0)), np.array(classes))
    plane = add("Add", add("Concat", ids, total, axis=1), add("Mul", image, np.array(classes + 1)))
    places = add("Mul", plane, np.array(rows * columns))
    flat = add("Reshape", planes, np.array([-1]))

    def with_rest(corner: np.ndarray[Any, Any]) -> str:
        numbers = add("Gather", flat, add("Add", places, corner), axis=0)
        chosen = part(numbers, 1, 0, candidates)
        all_of_them = part(numbers, 1, candidates, candidates + 1)
        rest = add("Sub", all_of_them, add.reduce("ReduceSum", add("Exp", chosen), keepdims=1))
        rest = add("Log", add("Clip", rest, np.array(1e-6, np.float32)))
        return add("Concat", chosen, rest, axis=1)

    def in_rows(cells: str, count: int) -> str:
        return add("Reshape", cells, np.array([-1, count, rows + 1, 1, (columns + 1) * stride]))

    def to_columns(left: str, right: str) -> str:
        step = add("Unsqueeze", add("Sub", right, left), np.array([-1]))
        numbers = add("Add", add("Unsqueeze", left, np.array([-1])), add("Mul", step, weights))
        return in_rows(numbers, candidates + 1)

    y = np.clip(np.arange(-1, rows) + np.array([[0], [1]]), 0, rows - 1)
    x = np.clip(np.arange(-1, columns) + np.array([[0], [1]]), 0, columns - 1)
    corners = (columns * y.reshape(2, 1, -1, 1) + x.reshape(1, 2, 1, -1)).reshape(2, 2, -1)
    top, bottom = (to_columns(*(with_rest(corner) for corner in side)) for side in corners)
    numbers = add("Unsqueeze", add("Cast", ids, to=TensorProto.FLOAT), np.array([-1]))
    names = in_rows(add("Mul", numbers, np.ones(stride, np.float32)), candidates)

    def nth(tensor: str, index: int) -> str:
        return add("Gather", tensor, np.array(index), axis=1)

    heights = []
    for index in range(candidates + 1):
        upper = nth(top, index)
        step = add("Mul", add("Sub", nth(bottom, index), upper), weights.reshape(-1, 1))
        heights.append(add("Add", upper, step))
    best, mask, others = heights[0], nth(names, 0), heights[-1:]
    for index in range(1, candidates):
        mask = add("Where", add("Greater", heights[index], best), nth(names, index), mask)
        others.append(add("Min", heights[index], best))
        best = add("Max", heights[index], best)
    summed = add("Add", add("Exp", add("Sub", others[0], best)), np.array(1, np.float32))
    for other in others[1:]:
        summed = add("Add", summed, add("Exp", add("Sub", other, best)))
    share = add("Mul", add("Reciprocal", summed), np.array(255, np.float32))

    def in_pixels(cells: str) -> str:
        numbers = add("Cast", cells, to=TensorProto.UINT8)
        plane = add("Reshape", numbers, np.array([-1, (rows + 1) * stride, (columns + 1) * stride]))
        margin = stride // 2
        return part(part(plane, 1, margin, margin + height), 2, margin, margin + width)

    return in_pixels(mask), in_pixels(add("Add", share, np.array(0.5, np.float32)))
