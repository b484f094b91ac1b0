# SPDX-License-Identifier: Apache-2.0
"""The import decides by graph and types what an output holds, also where the values of one image say otherwise.

The networks are one convolution, of weights that tell red from everything else, and the operators of each case. That
``canet import`` writes what is decided here: test_onnx_network.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from canet_ros.model.onnx_import import Answers, find_interface
from canet_ros.model.onnx_interface import OnnxInterface
from canet_ros.model.onnx_network import deployment_graph
from canet_ros.simulation import StreetDrive

WIDTH, HEIGHT = 64, 48
STREET = StreetDrive(6, 640, 480).frame(0).image
UNIT = {"scale": 1 / 255, "mean": (0.0,) * 3, "std": (1.0,) * 3}
# Of a red of 200 the logit is 0.58 and the probability 0.64; of everything else they are below -100, and 0.
RED, BIAS = 600.0, -470.0
FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
INT64, UINT8, BOOL = TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL
CONSTANTS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "256": np.float32(255),
    "white": np.uint8(255),
    "black": np.uint8(0),
    "step": np.float32(1 / 255),
    "zero_at": np.array([0], np.int64),
    "one_at": np.array([1], np.int64),
    "sizes": np.array([1, 1, HEIGHT, WIDTH], np.int64),
    "flat": np.array([1, HEIGHT, WIDTH], np.int64),
}


def node(operator: str, inputs: str = "", outputs: str = "", **attributes: Any) -> Any:
    return operator, inputs.split(), outputs.split(), attributes


def cast(kind: int) -> Any:
    return node("Cast", to=kind)


def network(
    nodes: Sequence[Any],
    channels: int = 1,
    kind: int = FLOAT,
    shape: Sequence[Any] = ("b", "c", "h", "w"),
    taken: Sequence[Any] = (1, 3, HEIGHT, WIDTH),
    first: Sequence[Any] = (),
) -> Any:
    """A network whose output ``y`` the nodes make of ``z``; chained, where they name no tensors. ``first`` come before
    the convolution.
    """
    weights = np.zeros((channels, 3, 1, 1), np.float32)
    weights[channels - 1, :, 0, 0] = RED, -RED, -RED
    bias = np.zeros(channels, np.float32)
    bias[channels - 1] = BIAS
    made = []
    for stage, begin, end in ((first, "x", "c"), ([node("Conv", "c w b", "z")], "c", "z"), (nodes, "z", "y")):
        last = begin
        for index, (operator, inputs, outputs, attributes) in enumerate(stage or [node("Identity")]):
            outputs = outputs or [end if index + 1 == len(stage or [0]) else f"{end}{index}"]
            inputs = [last if name == "_" else name for name in inputs] or [last]
            made.append(helper.make_node(operator, inputs, outputs, **attributes))
            last = outputs[0]
    values = {**CONSTANTS, "w": weights, "b": bias}
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, taken)],
        [helper.make_tensor_value_info("y", kind, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def interface_of(model: Any, classes: int = 2, **answers: Any) -> OnnxInterface:
    onnx.checker.check_model(model)
    return find_interface(model, classes, Answers(**{"color": "rgb", **answers}), STREET)[0]


def mask_of(model: Any, interface: OnnxInterface, classes: int = 2) -> NDArray[np.uint8]:
    """Of an image that is red, at a probability of 0.64, from column 0 to 19, and else green."""
    image = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    image[:, :, :20, 2], image[:, :, 20:, 1] = 200, 255
    graph = deployment_graph(model, interface, classes, (WIDTH, HEIGHT)).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["mask"], {"images": image})[0][0])


def require_red(mask: NDArray[np.uint8], last: int = 1) -> None:
    assert (mask[:, 2:18] == last).all()
    assert (mask[:, 24:] != last).all()


SIGMOID = node("Sigmoid")
SOFTMAX = node("Softmax", axis=1)
ARGMAX = node("ArgMax", axis=1)
ABOVE_HALF = node("Greater", "_ half")
NAMED = node("Greater", "_ half", "m")
RESIZE = ("Resize", ["_", "", "", "sizes"], [], {"mode": "cubic"})


@pytest.mark.parametrize(
    ("nodes", "channels", "kind", "gives"),
    [
        # Of the street that the import tries it on, they are 0 everywhere.
        ([SIGMOID], 1, FLOAT, "probabilities"),
        ([node("HardSigmoid", alpha=0.001, beta=0.5)], 1, FLOAT, "probabilities"),
        ([SIGMOID, cast(HALF)], 1, HALF, "probabilities"),
        ([SIGMOID, cast(DOUBLE)], 1, DOUBLE, "probabilities"),
        ([SIGMOID, node("Clip", "_ zero one")], 1, FLOAT, "probabilities"),
        ([SIGMOID, node("Max", "_ zero")], 1, FLOAT, "probabilities"),
        ([SIGMOID, RESIZE], 1, FLOAT, "probabilities"),
        ([SIGMOID, node("Squeeze", "_ one_at")], 1, FLOAT, "probabilities"),
        ([SIGMOID, node("Reshape", "_ flat")], 1, FLOAT, "probabilities"),
        ([SIGMOID, node("Transpose", perm=[0, 2, 3, 1])], 1, FLOAT, "probabilities"),
        ([SIGMOID, node("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], 1, FLOAT, "probabilities"),
        ([SIGMOID, node("Sub", "one _", "q"), node("Concat", "q y0", axis=1)], 1, FLOAT, "probabilities"),
        ([node("LogSoftmax", axis=1), node("Exp")], 2, FLOAT, "probabilities"),
        ([SOFTMAX, cast(HALF)], 2, HALF, "probabilities"),
        ([], 1, FLOAT, "logits"),
        ([node("Mul", "_ half")], 1, FLOAT, "logits"),  # a temperature
        ([node("Tanh")], 1, FLOAT, "logits"),
        ([node("Round")], 1, FLOAT, "logits"),  # whole numbers, and no ids
        ([], 3, FLOAT, "logits"),
        ([node("LogSoftmax", axis=1)], 2, FLOAT, "logits"),
        ([node("Relu")], 2, FLOAT, "logits"),
        ([ARGMAX], 2, INT64, "ids"),
        ([ARGMAX, cast(FLOAT)], 2, FLOAT, "ids"),
        ([SIGMOID, ABOVE_HALF], 1, BOOL, "ids"),
        ([SIGMOID, ABOVE_HALF, cast(FLOAT)], 1, FLOAT, "ids"),
        ([SIGMOID, node("Round")], 1, FLOAT, "ids"),
        ([SIGMOID, NAMED, node("Where", "m one zero")], 1, FLOAT, "ids"),
    ],
)
def test_the_graph_decides_what_comes_out(nodes: list[Any], channels: int, kind: int, gives: str) -> None:
    names = [operator for operator, *_ in nodes]
    shape = ("b", "h", "w") if {"Squeeze", "Reshape"} & {*names} else ("b", "c", "h", "w")
    model, classes = network(nodes, channels, kind, shape), max(2, channels)
    interface = interface_of(model, classes, **UNIT)
    assert interface.gives == gives
    require_red(mask_of(model, interface, classes), classes - 1)


OPEN = "--output-kind logits, probabilities or ids"
BY_HAND = [node("Neg"), node("Exp"), node("Add", "_ one"), node("Reciprocal")]  # a Sigmoid


@pytest.mark.parametrize(
    ("nodes", "channels", "kind", "classes", "answer", "words"),
    [
        ([SIGMOID, node("Mul", "_ 256"), cast(UINT8)], 1, UINT8, 2, None, OPEN),  # 0 to 255, and no ids
        ([SIGMOID, node("QuantizeLinear", "_ step black")], 1, UINT8, 2, None, OPEN),
        ([SIGMOID, node("Mul", "_ 256")], 1, FLOAT, 2, None, OPEN),
        ([SIGMOID, node("Sub", "one _")], 1, FLOAT, 2, None, OPEN),  # the probability of the first class
        ([SIGMOID, node("Log")], 1, FLOAT, 2, None, OPEN),  # never above 0
        (BY_HAND, 1, FLOAT, 2, None, OPEN),
        ([node("Relu")], 1, FLOAT, 2, None, OPEN),
        ([node("Clip", "_ zero one")], 1, FLOAT, 2, None, OPEN),
        ([SOFTMAX], 1, FLOAT, 2, None, "a Softmax over one channel, which is always 1"),
        ([ARGMAX], 3, INT64, 2, None, "one of 3 classes, and the class table has 2"),
        ([ARGMAX], 2, INT64, 11, None, "one of 2 classes, and the class table has 11"),
        ([SIGMOID, ABOVE_HALF], 1, BOOL, 3, None, "one of 2 classes, and the class table has"),
        ([SIGMOID, ABOVE_HALF, cast(FLOAT), node("Mul", "_ 256")], 1, FLOAT, 2, None, "one of 256 classes"),
        ([SIGMOID, NAMED, node("Where", "m white black")], 1, UINT8, 2, None, "one of 256 classes"),
        ([SIGMOID], 1, FLOAT, 3, None, "has 3 classes, not 1 (NCHW)"),
        ([SIGMOID, node("Add", "_ half")], 1, FLOAT, 2, "ids", "not integers"),
        ([], 1, FLOAT, 2, "probabilities", ", not probabilities: choose another"),
    ],
)
def test_what_is_open_is_asked_and_what_cannot_be_is_refused(
    nodes: list[Any], channels: int, kind: int, classes: int, answer: str | None, words: str
) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        interface_of(network(nodes, channels, kind), classes, **UNIT, output_kind=answer)
    assert words in str(refused.value)


def test_an_answer_to_that_question_is_taken() -> None:
    model = network(BY_HAND)
    require_red(mask_of(model, interface_of(model, **UNIT, output_kind="probabilities")))


@pytest.mark.parametrize("last", [False, True])
def test_layouts_are_those_of_the_convolutions(last: bool) -> None:
    """Here with an input of any size, and as many channels as columns, so that sizes do not tell."""
    first, end = ([node("Transpose", perm=perm)] if last else [] for perm in ([0, 3, 1, 2], [0, 2, 3, 1]))
    model = network([SOFTMAX, *end], WIDTH, taken=("b", "s", "h", "w"), first=first)
    interface = interface_of(model, WIDTH, **UNIT, resolution=(WIDTH, HEIGHT))
    assert interface.input_layout == interface.output_layout == ("NHWC" if last else "NCHW")
    require_red(mask_of(model, interface, WIDTH), WIDTH - 1)


@pytest.mark.parametrize(
    ("mean", "std", "scale", "expected"),
    [
        (0.485, 0.229, None, 1 / 255),
        (0.5, 1.0, None, 1 / 255),
        (0.0, 0.5, None, 1 / 255),
        (123.675, 58.395, None, 1.0),
        (123.675, 1.0, None, 1.0),
        (0.0, 255.0, None, 1.0),
        (1.0, 1.0, 1 / 127.5, 1 / 127.5),
        (0.0, 1.0, None, "--scale: it is unclear whether mean and std refer"),
        (0.485, 58.395, None, "--scale: it is unclear whether mean and std refer"),
        (123.675, 0.229, None, "--scale: it is unclear whether mean and std refer"),
        (123.675, 58.395, 1 / 255, "pixels are 0 to 1, and these are of larger ones"),
        (0.0, 255.0, 1 / 255, "pixels are 0 to 1, and these are of larger ones"),
        (0.485, 0.229, 1.0, "pixels are 0 to 255, and these are of smaller ones"),
    ],
)
def test_mean_and_std_tell_the_range_of_pixels(
    mean: float, std: float, scale: float | None, expected: float | str
) -> None:
    answers = {"mean": (mean,) * 3, "std": (std,) * 3, "scale": scale}
    if isinstance(expected, float):
        assert interface_of(network([SIGMOID]), **answers).scale == pytest.approx(expected)
    else:
        with pytest.raises(ValueError, match=expected):
            interface_of(network([SIGMOID]), **answers)


@pytest.mark.parametrize(
    "first", [[node("Div", "_ 256")], [node("Mul", "_ step")], [node("Sub", "_ 256"), node("Mul", "_ step")]]
)
def test_a_graph_that_scales_pixels_itself_is_not_scaled_twice(first: list[Any]) -> None:
    model = network([SIGMOID], first=first)
    assert interface_of(model).scale == 1
    with pytest.raises(ValueError, match="the graph itself scales pixels"):
        interface_of(model, **UNIT)


# An output of one size; and one that has the right shape, and tells every image of a batch what the first one is.
ONE_SIZE = ([node("Reshape", "_ sizes")], ("b", 3, "h", "w"), [])
ONE_RESULT = (
    [],
    ("b", 3, HEIGHT, WIDTH),
    [
        node("Slice", "x zero_at one_at zero_at", "only"),
        node("Sub", "x x", "none"),
        node("Add", "only none", "c"),
    ],
)


@pytest.mark.parametrize(("nodes", "taken", "first"), [ONE_SIZE, ONE_RESULT])
def test_what_is_declared_free_and_is_not_is_found_out(
    nodes: list[Any], taken: Sequence[Any], first: list[Any]
) -> None:
    interface = interface_of(network(nodes, taken=taken, first=first), **UNIT, resolution=(WIDTH, HEIGHT))
    assert not interface.free_size
    assert not interface.free_batch
