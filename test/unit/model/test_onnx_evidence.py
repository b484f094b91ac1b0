# SPDX-License-Identifier: Apache-2.0
"""``canet import`` decides by graph and types what an output holds, also where the values of one image say otherwise.

The networks are one convolution, of weights that tell red from everything else, and the operators of each case.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_onnx_network import table

from canet_ros.cli import main
from canet_ros.model.model_folder import load_spec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WIDTH, HEIGHT = 64, 48
UNIT = ["--scale", "1/255", "--mean", "0", "0", "0", "--std", "1", "1", "1"]
# Of a red of 200 the logit is 0.58 and the probability 0.64; of everything else they are below -100, and 0.
RED, BIAS = 600.0, -470.0


def node(operator: str, inputs: str = "", outputs: str = "", **attributes: Any) -> Any:
    return operator, inputs.split(), outputs.split(), attributes


CONSTANTS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "minus": np.float32(-1),
    "256": np.float32(255),
    "white": np.uint8(255),
    "black": np.uint8(0),
    "step": np.float32(1 / 255),
    "zero_at": np.array([0], np.int64),
    "one_at": np.array([1], np.int64),
    "sizes": np.array([1, 1, HEIGHT, WIDTH], np.int64),
    "flat": np.array([1, HEIGHT, WIDTH], np.int64),
}


def network(
    path: Path,
    nodes: Sequence[Any],
    channels: int = 1,
    kind: int = TensorProto.FLOAT,
    shape: Sequence[Any] = ("b", "c", "h", "w"),
    taken: Sequence[Any] = (1, 3, HEIGHT, WIDTH),
    first: Sequence[Any] = (),
) -> Path:
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
    given = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in {**CONSTANTS, "w": weights, "b": bias}.items()
    ]
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", kind, shape)],
        given,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def run_import(file: Path, classes: int, *options: str) -> tuple[int, Path]:
    out = file.with_name("model")
    arguments = [
        "import",
        file,
        "--classes",
        table(file.parent, classes),
        "--out",
        out,
        "--color",
        "rgb",
    ]
    return main([*map(str, arguments), *options]), out


def mask_of(model: Path) -> NDArray[np.uint8]:
    """Of an image that is red, at a probability of 0.64, from column 0 to 19, and else green."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :20, 2], image[:, 20:, 1] = 200, 255
    cv2.imwrite(str(model.with_name("image.png")), image)
    arguments = ["segment", model.with_name("image.png"), "--out", model.with_name("out"), "--model", model]
    assert main([*map(str, arguments), "--precision", "fp32"]) == 0
    return np.asarray(cv2.imread(str(model.with_name("out") / "image_mask.png"), -1))


def cast(kind: int) -> Any:
    return node("Cast", to=kind)


SIGMOID = node("Sigmoid")
SQUEEZE = node("Squeeze", "_ one_at")
THREE = ("b", "h", "w")


@pytest.mark.parametrize(
    ("nodes", "kind", "shape"),
    [
        ([SIGMOID], TensorProto.FLOAT, None),
        ([node("HardSigmoid", alpha=0.001, beta=0.5)], TensorProto.FLOAT, None),
        ([SIGMOID, cast(TensorProto.FLOAT16)], TensorProto.FLOAT16, None),
        ([SIGMOID, cast(TensorProto.DOUBLE)], TensorProto.DOUBLE, None),
        ([SIGMOID, node("Clip", "_ zero one")], TensorProto.FLOAT, None),
        ([SIGMOID, node("Max", "_ zero")], TensorProto.FLOAT, None),
        ([SIGMOID, ("Resize", ["_", "", "", "sizes"], [], {"mode": "cubic"})], TensorProto.FLOAT, None),
        ([SIGMOID, SQUEEZE], TensorProto.FLOAT, THREE),
        ([SIGMOID, node("Reshape", "_ flat")], TensorProto.FLOAT, THREE),
        ([SIGMOID, node("Transpose", perm=[0, 2, 3, 1])], TensorProto.FLOAT, None),
        (
            [SIGMOID, node("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("Identity")],
            TensorProto.FLOAT,
            None,
        ),
    ],
)
def test_floats_behind_a_sigmoid_are_probabilities(
    nodes: list[Any], kind: int, shape: Sequence[str] | None, tmp_path: Path
) -> None:
    """Of the street that the import tries it on, they are 0 everywhere."""
    file = network(tmp_path / "n.onnx", nodes, kind=kind, shape=shape or ("b", "c", "h", "w"))
    status, model = run_import(file, 2, *UNIT)
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert interface.gives == "probabilities"
    mask = mask_of(model)
    assert (mask[:, 2:18] == 1).all()
    assert (mask[:, 24:] == 0).all()


@pytest.mark.parametrize(
    ("nodes", "channels", "kind", "gives"),
    [
        ([], 1, TensorProto.FLOAT, "logits"),
        ([node("Mul", "_ half")], 1, TensorProto.FLOAT, "logits"),  # a temperature
        ([node("Tanh")], 1, TensorProto.FLOAT, "logits"),
        ([node("Round")], 1, TensorProto.FLOAT, "logits"),  # whole numbers, and no ids
        ([], 3, TensorProto.FLOAT, "logits"),
        ([node("LogSoftmax", axis=1)], 2, TensorProto.FLOAT, "logits"),
        ([node("Relu")], 2, TensorProto.FLOAT, "logits"),
        ([node("LogSoftmax", axis=1), node("Exp")], 2, TensorProto.FLOAT, "probabilities"),
        ([node("Softmax", axis=1)], 2, TensorProto.FLOAT, "probabilities"),
        ([node("Softmax", axis=1), cast(TensorProto.FLOAT16)], 2, TensorProto.FLOAT16, "probabilities"),
        ([SIGMOID, node("Sub", "one _", "q"), node("Concat", "q y0", axis=1)], 1, TensorProto.FLOAT, "probabilities"),
        ([node("ArgMax", axis=1)], 2, TensorProto.INT64, "ids"),
        ([node("ArgMax", axis=1), cast(TensorProto.FLOAT)], 2, TensorProto.FLOAT, "ids"),
        ([SIGMOID, node("Greater", "_ half")], 1, TensorProto.BOOL, "ids"),
        ([SIGMOID, node("Greater", "_ half"), cast(TensorProto.FLOAT)], 1, TensorProto.FLOAT, "ids"),
        ([SIGMOID, node("Round")], 1, TensorProto.FLOAT, "ids"),
        ([SIGMOID, node("Greater", "_ half", "m"), node("Where", "m one zero")], 1, TensorProto.FLOAT, "ids"),
    ],
)  # fmt: skip
def test_the_graph_decides_what_comes_out(
    nodes: list[Any], channels: int, kind: int, gives: str, tmp_path: Path
) -> None:
    classes = max(2, channels)
    shape = ("b", "c", "h", "w")
    status, model = run_import(network(tmp_path / "n.onnx", nodes, channels, kind, shape), classes, *UNIT)
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert interface.gives == gives
    mask = mask_of(model)
    assert (mask[:, 2:18] == classes - 1).all()
    assert (mask[:, 24:] != classes - 1).all()


BYTES = [node("Mul", "_ 256"), cast(TensorProto.UINT8)]


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ([SIGMOID, *BYTES], TensorProto.UINT8),  # 0 to 255, and no ids
        ([SIGMOID, node("QuantizeLinear", "_ step black")], TensorProto.UINT8),
        ([SIGMOID, node("Mul", "_ 256")], TensorProto.FLOAT),
        ([SIGMOID, node("Sub", "one _")], TensorProto.FLOAT),  # the probability of the first class
        ([SIGMOID, node("Log")], TensorProto.FLOAT),  # never above 0
        ([node("Neg"), node("Exp"), node("Add", "_ one"), node("Reciprocal")], TensorProto.FLOAT),  # a Sigmoid by hand
        ([node("Relu")], TensorProto.FLOAT),
        ([node("Clip", "_ zero one")], TensorProto.FLOAT),
    ],
)  # fmt: skip
def test_what_graph_and_types_leave_open_is_asked(
    nodes: list[Any], kind: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, model = run_import(network(tmp_path / "n.onnx", nodes, kind=kind), 2, *UNIT)
    assert status == 1
    assert "--output-kind logits, probabilities or ids" in capsys.readouterr().err
    assert not model.exists()


def test_an_answer_to_that_question_is_taken(tmp_path: Path) -> None:
    nodes = [node("Neg"), node("Exp"), node("Add", "_ one"), node("Reciprocal")]
    status, model = run_import(
        network(tmp_path / "n.onnx", nodes), 2, *UNIT, "--output-kind", "probabilities"
    )
    assert status == 0
    assert (mask_of(model)[:, 2:18] == 1).all()


@pytest.mark.parametrize(
    ("nodes", "channels", "kind", "classes", "options", "words"),
    [
        ([node("Softmax", axis=1)], 1, TensorProto.FLOAT, 2, [], "a Softmax over one channel, which is always 1"),
        ([node("ArgMax", axis=1)], 3, TensorProto.INT64, 2, [], "one of 3 classes, and the class table has 2"),
        ([node("ArgMax", axis=1)], 2, TensorProto.INT64, 11, [], "one of 2 classes, and the class table has 11"),
        ([SIGMOID, node("Greater", "_ half")], 1, TensorProto.BOOL, 3, [], "one of 2 classes, and the class table has"),
        (
            [SIGMOID, node("Greater", "_ half"), cast(TensorProto.FLOAT), node("Mul", "_ 256")], 1, TensorProto.FLOAT,
            2, [], "one of 256 classes",
        ),
        (
            [SIGMOID, node("Greater", "_ half", "m"), node("Where", "m white black")], 1, TensorProto.UINT8, 2, [],
            "one of 256 classes",
        ),
        ([SIGMOID], 1, TensorProto.FLOAT, 3, [], "has 3 classes, not 1 (NCHW)"),
        ([SIGMOID, node("Add", "_ half")], 1, TensorProto.FLOAT, 2, ["--output-kind", "ids"], "not integers"),
        ([], 1, TensorProto.FLOAT, 2, ["--output-kind", "probabilities"], ", not probabilities: choose another"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    nodes: list[Any],
    channels: int,
    kind: int,
    classes: int,
    options: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, model = run_import(network(tmp_path / "n.onnx", nodes, channels, kind), classes, *UNIT, *options)
    assert status == 1
    assert words in capsys.readouterr().err
    assert not model.exists()


@pytest.mark.parametrize("side", ["channels first", "channels last"])
def test_the_layout_of_the_input_is_that_of_the_convolution(side: str, tmp_path: Path) -> None:
    first = [] if side == "channels first" else [node("Transpose", perm=[0, 3, 1, 2])]
    file = network(tmp_path / "n.onnx", [], taken=("b", "s", "h", "w"), first=first)
    status, model = run_import(file, 2, *UNIT, "--resolution", f"{WIDTH}x{HEIGHT}")
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert interface.input_layout == ("NHWC" if first else "NCHW")
    assert (mask_of(model)[:, 2:18] == 1).all()


@pytest.mark.parametrize("last", [False, True])
def test_the_layout_of_the_output_is_that_of_the_convolution(last: bool, tmp_path: Path) -> None:
    """Here as many channels as columns, so that sizes do not tell."""
    nodes = [node("Softmax", axis=1), *([node("Transpose", perm=[0, 2, 3, 1])] if last else [])]
    status, model = run_import(network(tmp_path / "n.onnx", nodes, WIDTH), WIDTH, *UNIT)
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert interface.output_layout == ("NHWC" if last else "NCHW")
    assert (mask_of(model)[:, 2:18] == WIDTH - 1).all()


def given(mean: float, std: float, scale: str = "") -> list[str]:
    options = ["--mean", *[str(mean)] * 3, "--std", *[str(std)] * 3]
    return [*options, "--scale", scale] if scale else options


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        (given(0.485, 0.229), 1 / 255),
        (given(0.5, 1), 1 / 255),
        (given(0, 0.5), 1 / 255),
        (given(123.675, 58.395), 1.0),
        (given(123.675, 1), 1.0),
        (given(0, 255), 1.0),
        (given(0, 58.395), 1.0),
        (given(1, 1, "1/127.5"), 1 / 127.5),
    ],
)
def test_mean_and_std_tell_the_range_of_pixels(options: list[str], scale: float, tmp_path: Path) -> None:
    status, model = run_import(network(tmp_path / "n.onnx", [SIGMOID]), 2, *options)
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert interface.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (given(0, 1), "--scale: it is unclear whether mean and std refer"),
        (given(0.485, 58.395), "--scale: it is unclear whether mean and std refer"),
        (given(123.675, 0.229), "--scale: it is unclear whether mean and std refer"),
        (given(123.675, 58.395, "1/255"), "pixels are 0 to 1, and these are of larger ones"),
        (given(0, 255, "1/255"), "pixels are 0 to 1, and these are of larger ones"),
        (given(0.485, 0.229, "1"), "pixels are 0 to 255, and these are of smaller ones"),
    ],
)
def test_a_mean_and_a_std_that_do_not_fit_are_asked_about(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, model = run_import(network(tmp_path / "n.onnx", [SIGMOID]), 2, *options)
    assert status == 1
    assert words in capsys.readouterr().err
    assert not model.exists()


@pytest.mark.parametrize(
    "first", [[node("Div", "_ 256")], [node("Mul", "_ step")], [node("Sub", "_ 256"), node("Mul", "_ step")]]
)
def test_a_graph_that_scales_pixels_itself_is_not_scaled_twice(
    first: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = network(tmp_path / "n.onnx", [SIGMOID], first=first)
    status, model = run_import(file, 2)
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert interface.scale == 1
    assert run_import(file, 2, "--force", *UNIT)[0] == 1
    assert "the graph itself scales pixels" in capsys.readouterr().err


def test_a_free_size_that_is_written_into_the_graph_is_found_out(tmp_path: Path) -> None:
    nodes = [node("Reshape", "_ sizes")]
    file = network(tmp_path / "n.onnx", nodes, taken=("b", 3, "h", "w"))
    status, model = run_import(file, 2, *UNIT, "--resolution", f"{WIDTH}x{HEIGHT}")
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert not interface.free_size
    assert not interface.free_batch


def test_a_batch_whose_images_get_one_result_is_not_free(tmp_path: Path) -> None:
    """It has the right shape, of a network that tells every image of a batch what the first one is."""
    first = [
        node("Slice", "x zero_at one_at zero_at", "only"),
        node("Sub", "x x", "none"),
        node("Add", "only none", "c"),
    ]
    file = network(tmp_path / "n.onnx", [], taken=("b", 3, HEIGHT, WIDTH), first=first)
    status, model = run_import(file, 2, *UNIT)
    assert status == 0
    interface = load_spec(model).onnx
    assert interface is not None
    assert not interface.free_batch
