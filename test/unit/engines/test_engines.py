# SPDX-License-Identifier: Apache-2.0
"""Engines give the same masks, whatever runs them, and say clearly what cannot be had."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from canet_ros.engines import EngineRequest, cpu_has_bf16, create_engine
from canet_ros.engines.torch_engine import in_type
from canet_ros.model.deployment_module import DeploymentModule
from canet_ros.model.model_folder import available_models, load_network
from canet_ros.network.heads import BilinearHead, build_head
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import StreetDrive

pytestmark = pytest.mark.usefixtures("module_cache")

RESOLUTION = (160, 120)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Two drawn scenes, (2, 120, 160, 3)."""
    return np.stack([cv2.resize(StreetDrive(seed).frame(0).image, RESOLUTION) for seed in (1, 2)])


def run(
    model: Path, images: NDArray[np.uint8], engine: str, precision: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    height, width = images.shape[1:3]
    return create_engine(EngineRequest(model, (width, height), engine, "cpu", precision)).run(images)


def finer_head(coarse: BilinearHead) -> BilinearHead:
    """Neighbouring logits of a trained network resemble each other; those of random weights do not."""
    finer = build_head("subpixel", coarse.in_channels, coarse.out_channels)
    assert isinstance(finer, BilinearHead)
    assert coarse.bias is not None
    unlike = torch.tensor([1.0, 0.9, 1.1, 0.8]).repeat(coarse.out_channels)
    finer.weight.data = coarse.weight.repeat_interleave(4, 0) * unlike[:, None, None, None]
    finer.bias = torch.nn.Parameter(coarse.bias.repeat_interleave(4))
    return finer


@pytest.mark.parametrize(
    ("size", "agreement"), [((160, 120), 0.999), ((161, 117), 0.999), ((50, 100), 0.999), ((16, 16), 0.99)]
)
@pytest.mark.parametrize("head", ["bilinear", "subpixel"])
def test_upsampling_is_bilinear_softmax_and_argmax(
    random_model: Path, images: NDArray[np.uint8], size: tuple[int, int], agreement: float, head: str
) -> None:
    spec, network = load_network(random_model)
    if head == "subpixel":
        network.head = finer_head(network.head)
    network.head.weight.data *= 4  # trained networks are surer than random ones
    image = cv2.resize(images[0], size)
    with torch.inference_mode():
        mask, confidence = DeploymentModule(spec, network, size).eval()(torch.from_numpy(image)[None])
        rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        normal = (rgb - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
        probability, plain = network(normal).softmax(1).max(1)
    assert (mask == plain).float().mean() >= agreement
    off = (confidence.float() - 255 * probability).abs()
    assert off.mean() < 2
    assert len(np.unique(plain)) > 1


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_fp32_engines_agree_with_torch(random_model: Path, images: NDArray[np.uint8], engine: str) -> None:
    expected_mask, expected_confidence = run(random_model, images, "torch", "fp32")
    mask, confidence = run(random_model, images, engine, "fp32")
    assert mask.shape == confidence.shape == (2, 120, 160)
    assert mask.dtype == confidence.dtype == np.uint8
    assert (mask == expected_mask).mean() > 0.999
    assert np.abs(confidence.astype(int) - expected_confidence).max() <= 2


def test_results_are_the_callers_to_keep(random_model: Path, images: NDArray[np.uint8]) -> None:
    for name in ("torch", "openvino", "onnxruntime"):
        engine = create_engine(EngineRequest(random_model, RESOLUTION, name, "cpu", "fp32"))
        mask, _ = engine.run(images[:1])
        kept = mask.copy()
        engine.run(255 - images[:1])
        np.testing.assert_array_equal(mask, kept, err_msg=name)


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bf16_of_a_trained_model_agrees(engine: str) -> None:
    """On images other than any that the rounding saw."""
    name = "canet-mobilenet_v2-camvid"
    if name not in available_models():
        pytest.skip(f"{name} is not shipped here")
    images = [StreetDrive(seed, 480, 360).frame(0).image for seed in (3, 4)]
    exact = Segmenter.load(name, "cpu", "torch", "fp32")
    rounded = Segmenter.load(name, "cpu", engine, "bf16")
    agreements = [(exact(image).mask == rounded(image).mask).mean() for image in images]
    # Drawn scenes are harder than the streets it was trained on.
    assert np.mean(agreements) > 0.985, agreements


def test_auto_takes_openvino_on_a_cpu_and_says_why(random_model: Path) -> None:
    engine = create_engine(EngineRequest(random_model, RESOLUTION, device="cpu"))
    assert engine.name == "openvino"
    assert engine.precision == ("bf16" if cpu_has_bf16() else "fp32")
    assert "OpenVINO" in engine.reason


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_all_of_it_is_on_the_gpu_and_nothing_waits(random_model: Path, precision: str) -> None:
    """Tried on PyTorch's device that computes nothing: other devices raise, and so does a wait for a number."""
    spec, network = load_network(random_model)
    graph = in_type(DeploymentModule(spec, network, (160, 120)).eval(), precision).to("meta")
    images = torch.zeros(2, 120, 160, 3, dtype=torch.uint8, device="meta")
    for plane in graph(images):
        assert (plane.device.type, plane.dtype, tuple(plane.shape)) == ("meta", torch.uint8, (2, 120, 160))
    graph.classes.corners = torch.zeros_like(graph.classes.corners, device="cpu")
    with pytest.raises((RuntimeError, NotImplementedError)):
        graph(images)


def test_weights_are_in_the_type_that_it_computes_in(random_model: Path) -> None:
    spec, network = load_network(random_model)
    graph = in_type(DeploymentModule(spec, network, (160, 120)).eval(), "fp16")
    assert {parameter.dtype for parameter in graph.parameters()} == {torch.float16}
    seen: dict[str, torch.dtype] = {}
    graph.network.head.register_forward_pre_hook(lambda module, inputs: seen.update(head=inputs[0].dtype))
    handle = graph.classes.register_forward_pre_hook(
        lambda module, inputs: seen.update(logits=inputs[0].dtype)
    )
    images = torch.randint(0, 256, (1, 120, 160, 3), dtype=torch.uint8)
    with torch.inference_mode():
        half = graph(images)
        handle.remove()
        exact = DeploymentModule(spec, network, (160, 120)).eval()(images)
    assert seen["logits"] == torch.float16
    assert (half[0] == exact[0]).float().mean() > 0.98  # random weights are unsure of nearly every pixel
