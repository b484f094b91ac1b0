# SPDX-License-Identifier: Apache-2.0
"""TensorRT's dialect of the deployment graph, run on the CPU: what TensorRT takes, and the masks of fp32.

Asserted of shipped models on their test images, or those of $CANET_ROS_STREETS, and of networks of other people.
That TensorRT compiles it: test_tensorrt_compiler.py. Not asserted: masks and speed on a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_onnx_network import (
    CASES,
    NHWC,
    RGB,
    Case,
    Network,
    at_full_size,
    export,
    imported,
    normalised,
    rgb_bytes,
    scene,
)
from torch import Tensor, nn

from canet_ros.engines import EngineRequest, create_engine
from canet_ros.model.deployment import deployment_graph
from canet_ros.model.model_folder import Resolution, available_models, find_model
from canet_ros.model.rounding import round_convolution

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
    # Weights of 7 bits: CPUs without VNNI add products of 8 bits in 16, which saturate.
    quantization.quantize_static(
        str(file), str(quantised), Reader(), activation_type=kind, weight_type=kind, reduce_range=True
    )
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


def bytes_in_halves(x: Tensor) -> Tensor:
    return (x.permute(0, 3, 1, 2).half() - 127) / 64


OTHERS = {
    **{name: CASES[name] for name in ("stride 4 at any size", "softmax in NHWC", "ids in opset 18", "bytes in NHWC")},
    **{name: case for name, case in CASES.items() if name.startswith("ids, torch.")},
    "bytes and halves": Case(
        lambda: Network(4, beginning=bytes_in_halves).half(), rgb_bytes, NHWC, ("--color", "rgb"), 11, (97, 65)
    ),
    "hard in half": Case(Hard),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_others_agree_with_fp32(name: str, tmp_path: Path) -> None:
    case = OTHERS[name]
    folder = case.imported(case.make(), tmp_path)
    images = [scene(case.size, seed) for seed in range(3)]
    exact = masks(deployment_graph(folder, case.size, "onnxruntime", "fp32"), images)
    assert len(np.unique(exact)) > 2
    for precision in ("fp32", "fp16"):
        graph = deployment_graph(folder, case.size, "tensorrt", precision)
        require_tensorrts_rules(graph)
        # Random weights are unsure of every pixel.
        assert (masks(graph, images) == exact).mean() >= 0.995, precision


def test_a_large_bias_does_not_shift_the_mean() -> None:
    """Of the kind that made fp16 miss its goal: rounding a bias of 329 shifts every pixel of its channel by 0.1."""
    weight = np.random.default_rng(0).normal(size=(8, 16, 1, 1)).astype(np.float32)
    mean = np.full(16, 127.5, np.float32)
    bias = 0.01 - (weight[..., 0, 0] * mean).sum(1)
    rounded, rounded_bias = round_convolution(weight, bias, mean, "fp16")
    assert rounded_bias is not None
    np.testing.assert_array_equal(rounded, rounded.astype(np.float16))
    shift = ((rounded - weight)[..., 0, 0] * mean).sum(1) + rounded_bias - bias
    assert np.abs(shift).max() < 0.02
