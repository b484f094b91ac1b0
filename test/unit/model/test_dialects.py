# SPDX-License-Identifier: Apache-2.0
"""TensorRT's dialect of the deployment graph, run on the CPU: what TensorRT takes, and the masks of fp32.

Asserted of shipped models on their test images, or those of $CANET_ROS_STREETS, and of networks of other people.
That TensorRT compiles it: test_tensorrt_compiler.py. Not asserted: masks and speed on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_onnx_network import RGB, Network, at_full_size, export, imported, normalised, scene
from torch import Tensor, nn
from torch.nn import functional as F

from canet_ros.cli import main
from canet_ros.engines import EngineRequest, create_engine
from canet_ros.model.deployment import deployment_graph
from canet_ros.model.model_folder import Resolution, available_models, find_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("module_cache")

# More images than the models' own test images: a folder of street images.
STREETS = (
    sorted(Path(os.environ["CANET_ROS_STREETS"]).glob("*.*")) if "CANET_ROS_STREETS" in os.environ else []
)
# The test images are of garish colours, on which int8 is at its worst; of streets it has 0.985 and more at any size.
AGREEMENT = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.985 if STREETS else 0.98}
SHIPPED = sorted(available_models())


def streets(model: str, size: Resolution) -> list[NDArray[np.uint8]]:
    files = STREETS or [find_model(model) / "selftest.png"]
    return [cv2.resize(cv2.imread(str(file)), size, interpolation=cv2.INTER_AREA) for file in files]


def masks(graph: Path, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["mask"], {"images": image[None]})[0] for image in images])


def types_of(graph: Path) -> dict[str, int]:
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        value.name: value.data_type for value in model.graph.initializer
    }


def require_tensorrts_rules(graph: Path) -> None:
    """UINT8 at the ends alone, read or made by a Cast; zero points INT8 and 0."""
    model = onnx.load(graph)
    onnx.checker.check_model(model)
    types = types_of(graph)
    ends = {"images", "mask", "confidence"}
    assert {name for name, kind in types.items() if kind == onnx.TensorProto.UINT8} == ends
    for node in model.graph.node:
        if ends & {*node.input, *node.output}:
            assert node.op_type == "Cast", node.name
    values = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[1]].dtype == np.float32
            zero = values[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()


@pytest.mark.parametrize("signed", [True, False])
def test_a_network_that_came_quantised_gets_symmetric_scales(signed: bool, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    file = export(Network(4), tmp_path / "net.onnx")
    images = iter([{"in": normalised(scene((160, 120), seed)).numpy()} for seed in range(3)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> object:
            return next(images, None)

    quantised = tmp_path / "int8.onnx"
    kind = quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8
    quantization.quantize_static(str(file), str(quantised), Reader(), activation_type=kind, weight_type=kind)
    folder = imported(quantised, 11, *RGB)
    scenes = [scene((160, 120), seed) for seed in range(3)]
    session = onnxruntime.InferenceSession(str(quantised), providers=["CPUExecutionProvider"])
    logits = [session.run(None, {"in": normalised(image).numpy()})[0] for image in scenes]
    exact = at_full_size(torch.from_numpy(np.concatenate(logits)), scenes[0]).argmax(1).numpy()
    for name, least in (("openvino", 0.98), ("onnxruntime", 0.999)):
        engine = create_engine(EngineRequest(folder, (160, 120), name, "cpu", "fp32"))
        assert (engine.run(np.stack(scenes))[0] == exact).mean() >= least, name
    graph = deployment_graph(folder, (160, 120), "tensorrt", "fp16")
    require_tensorrts_rules(graph)
    assert (masks(graph, scenes) == exact).mean() >= 0.97


@pytest.mark.parametrize(
    ("model", "size"), [*((model, (480, 360)) for model in SHIPPED), (SHIPPED[-1], (321, 239))]
)
def test_shipped_models_agree_with_fp32(model: str, size: Resolution) -> None:
    images = streets(model, size)
    exact = masks(deployment_graph(find_model(model), size, "onnxruntime", "fp32"), images)
    for precision, least in AGREEMENT.items():
        graph = deployment_graph(find_model(model), size, "tensorrt", precision)
        require_tensorrts_rules(graph)
        assert (masks(graph, images) == exact).mean() >= least, precision
    half = deployment_graph(find_model(model), size, "onnxruntime", "fp16")
    assert (masks(half, images) == exact).mean() >= AGREEMENT["fp16"]


def test_what_would_be_too_coarse_in_half_stays_in_fp32() -> None:
    graph = deployment_graph(find_model(SHIPPED[0]), (160, 120), "tensorrt", "int8")
    types = types_of(graph)
    nodes = onnx.load(graph).graph.node
    of = {
        kind: {types[node.output[0]] for node in nodes if node.op_type == kind}
        for kind in ("Conv", "Gemm", "Relu")
    }
    assert set.union(*of.values()) == {onnx.TensorProto.FLOAT16}, "Turing multiplies nothing in fp32"
    for kind in ("ReduceMean", "Sigmoid", "Exp"):
        assert {types[node.output[0]] for node in nodes if node.op_type == kind} == {
            onnx.TensorProto.FLOAT
        }, kind


# --- networks of other people --------------------------------------------------------------------------------


class Hard(nn.Module):
    """What half precision breaks: a sum over all pixels, numbers that it cannot hold, and a large bias that cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network(2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        energy = (1000 * x).pow(2).sum((1, 2, 3), keepdim=True)  # 1e10
        normal = 1000 * logits * torch.rsqrt(energy / energy.detach() + 1e-9)
        return normal / 1000 + 3e5 - 3e5 * torch.ones_like(normal)


def at_size(ids: Tensor) -> Tensor:
    return ids.argmax(1)


ENDINGS: dict[str, tuple[Callable[[], nn.Module], dict[str, object], list[str]]] = {
    "logits": (lambda: Network(4), {}, []),
    "any batch": (lambda: Network(2), {"free": (0,)}, []),
    "probabilities in NHWC": (
        lambda: Network(1, ending=lambda x: x.softmax(1).permute(0, 2, 3, 1)), {}, []),
    "class ids": (lambda: Network(1, ending=at_size), {}, []),
    "class ids in bytes": (lambda: Network(2, ending=lambda x: at_size(x).to(torch.uint8)), {}, []),
    "class ids, floats": (lambda: Network(2, ending=lambda x: at_size(x)[:, None].float()), {}, []),
    "hard in half": (Hard, {}, []),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_networks_of_others_agree_with_fp32(ending: str, tmp_path: Path) -> None:
    make, options, more = ENDINGS[ending]
    folder = imported(export(make(), tmp_path / "net.onnx", **options), 11, *RGB, *more)
    images = [scene((160, 120), seed) for seed in range(3)]
    exact = masks(deployment_graph(folder, (160, 120), "onnxruntime", "fp32"), images)
    assert len(np.unique(exact)) > 2
    for precision in ("fp32", "fp16"):
        graph = deployment_graph(folder, (160, 120), "tensorrt", precision)
        require_tensorrts_rules(graph)
        assert (masks(graph, images) == exact).mean() >= 0.995, (
            precision
        )  # random weights are unsure of every pixel


def test_a_network_in_bytes_and_halves(tmp_path: Path) -> None:
    """Bytes in NHWC that the network casts itself; weights that came in fp16."""

    def beginning(x: Tensor) -> Tensor:
        return (x.permute(0, 3, 1, 2).half() - 127) / 64

    network = Network(4, beginning=beginning).half()
    file = export(network, tmp_path / "net.onnx", (1, 120, 160, 3), dtype=torch.uint8)
    folder = imported(file, 11, "--color", "rgb")
    images = [scene((160, 120), seed) for seed in range(3)]
    exact = masks(deployment_graph(folder, (160, 120), "onnxruntime", "fp32"), images)
    for precision in ("fp32", "fp16"):
        graph = deployment_graph(folder, (160, 120), "tensorrt", precision)
        require_tensorrts_rules(graph)
        assert (masks(graph, images) == exact).mean() >= 0.995


def test_graphs_within_nodes_are_left_in_fp32() -> None:
    """A branch reads a tensor from outside by name, where it must be fp32."""
    from canet_ros.model.dialects import half

    helper = onnx.helper
    branches = {}
    for name, factor in (("then", 1.0), ("else", 0.5)):
        weight = onnx.numpy_helper.from_array(np.float32([factor]), f"{name} weight")
        node = helper.make_node("Mul", ["y", weight.name], [name])
        out = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], [out], [weight])
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("If", ["yes"], ["z"], **branches),
        helper.make_node("Mul", ["z", "y"], ["w"]),
        helper.make_node("Cast", ["w"], ["out"], to=onnx.TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.UINT8, [2])],
        [onnx.numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(half(model).SerializeToString())
    assert session.run(None, {"x": np.float32([1, 3])})[0].tolist() == [4, 36]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_command_writes_it(precision: str, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    arguments = ["export", "--engine", "tensorrt", "--precision", precision, "--resolution", "160x96"]
    assert main([*arguments, "--out", str(out)]) == 0
    require_tensorrts_rules(out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [x.shape for x in session.run(None, {"images": np.zeros((2, 96, 160, 3), np.uint8)})] == [
        (2, 96, 160)
    ] * 2


def test_a_large_bias_does_not_shift_the_mean() -> None:
    """Of the kind that made fp16 miss its goal: rounding a bias of 329 shifts every pixel of its channel by 0.1."""
    from canet_ros.model.network_export import round_weights

    torch.manual_seed(0)

    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)
            with torch.no_grad():
                self.conv.bias.copy_(-self.conv.weight.sum((1, 2, 3)) * 127.5 + 0.01)

        def forward(self, images: Tensor) -> Tensor:
            return F.relu(self.conv(images.permute(0, 3, 1, 2).float()))

    graph = Cancelling().eval()
    images = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    exact = graph(images).mean((0, 2, 3))
    round_weights(graph, 64, 48, "fp16")
    torch.testing.assert_close(graph.conv.weight, graph.conv.weight.half().float(), rtol=0, atol=0)
    assert (graph(images).mean((0, 2, 3)) - exact).abs().max() < 0.02
