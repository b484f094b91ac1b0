# SPDX-License-Identifier: Apache-2.0
"""Time of the deployment graph outside of the network, beside its plain implementation. Needs PyTorch and OpenVINO."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from canet_ros.benchmark.engines import time_in_turns
from canet_ros.model.deployment_module import PixelsToClasses
from canet_ros.model.model_folder import ModelSpec, Resolution, load_network
from canet_ros.model.network_export import to_onnx
from canet_ros.network.heads import upsample
from canet_ros.simulation import StreetDrive


def measure_around_network(
    model: Path, resolution: Resolution, camera_size: Resolution, rounds: int, limit_s: float = math.inf
) -> dict[str, Any]:
    """Milliseconds of all but the network in OpenVINO: resizing, pixels to numbers, x8 upsampling, softmax, argmax.

    Measured on a graph that has no network, with the logits of a drawn scene; and beside it the plain way.
    """
    import openvino

    from canet_ros.model.openvino_core import openvino_core

    spec, network = load_network(model)
    graph = PixelsToClasses(spec, network, resolution).eval()
    scene = StreetDrive(0, *camera_size).frame(0).image
    batch = np.empty((1, resolution[1], resolution[0], 3), np.uint8)
    images = torch.from_numpy(batch)

    def resize() -> None:
        cv2.resize(scene, resolution, batch[0])

    resize()
    logits = graph.network.coarse_logits(graph.pixels(images)).detach()
    size = (resolution[1], resolution[0])
    runs: dict[str, Callable[[], object]] = {"resize_ms": resize}
    core = openvino_core()
    for name, part in (
        ("graph_ms", _AroundNetwork(graph)),
        ("plain_graph_ms", _PlainAround(spec, network.stride_of_logits, size)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "part.onnx"
            to_onnx(part, {"images": images, "logits": logits}, file)
            compiled = core.compile_model(core.read_model(file), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        request = compiled.create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(batch, shared_memory=True))
        request.set_input_tensor(1, openvino.Tensor(np.ascontiguousarray(logits.numpy()), shared_memory=True))
        runs[name] = request.infer
    durations_s = time_in_turns(list(runs.values()), rounds, "around the network", limit_s)
    return {name: 1e3 * float(np.median(seconds)) for name, seconds in zip(runs, durations_s)}


class _AroundNetwork(nn.Module):
    def __init__(self, graph: PixelsToClasses) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        return (self.graph.pixels(images), *self.graph.classes(logits))


class _PlainAround(nn.Module):
    def __init__(self, spec: ModelSpec, stride_of_logits: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.spec, self.stride_of_logits, self.size = spec, stride_of_logits, size

    def forward(self, images: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        best, mask = upsample(logits, self.stride_of_logits, self.size).softmax(1).max(1)
        pixels = self.spec.normalize(images.permute(0, 3, 1, 2).flip(1))
        return pixels, mask.to(torch.uint8), (255 * best).round().to(torch.uint8)
