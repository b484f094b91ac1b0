# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU or on CUDA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canet_ros.engines import EngineRequest, cpu_has_bf16
from canet_ros.engines.engine import warm_up
from canet_ros.errors import EngineError
from canet_ros.formats import engine_conflict
from canet_ros.hints import see_docs
from canet_ros.model.deployment_module import DeploymentModule
from canet_ros.model.model_folder import load_network
from canet_ros.model.network_export import round_weights

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """channels_last, inference mode; only bytes cross to and from the device.

    On CUDA weights and activations are in the precision's type, logits in fp32. A CPU computes in bf16 by autocast,
    which leaves in fp32 what it would compute more slowly.
    """

    name = "torch"

    def __init__(self, request: EngineRequest) -> None:
        self._device = _device(request.device)
        self.device = str(self._device)
        self.precision, self.reason = _precision(request.precision, self._device)
        spec, network = load_network(request.folder)
        width, height = request.resolution
        graph = DeploymentModule(spec, network, request.resolution).eval()
        if self.precision in _TYPES:
            round_weights(graph, width, height, self.precision)
        if self._device.type == "cuda":
            graph = in_type(graph, self.precision)
        self._graph = graph.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._captures: dict[int, _Capture] = {}
        self.most_at_once, self.fallback_reasons = warm_up(
            self.run, request.resolution, request.max_batch if self._device.type == "cuda" else 1
        )

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if self._device.type == "cuda":
            return self._run_on_gpu(images)
        with torch.inference_mode():
            mask, confidence = self._forward(torch.from_numpy(images))
        return mask.numpy(), confidence.numpy()

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # Autocast's cache of cast weights is of no use without gradients.
        with torch.autocast(
            "cpu",
            torch.bfloat16,
            enabled=self.device == "cpu" and self.precision == "bf16",
            cache_enabled=False,
        ):
            mask, confidence = self._graph(images)
        return mask, confidence

    def _run_on_gpu(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        with torch.inference_mode(), torch.cuda.device(self._device):
            if len(images) not in self._captures:
                self._captures[len(images)] = self._capture(images.shape)
            capture = self._captures[len(images)]
            capture.images.numpy()[:] = images
            with torch.cuda.stream(capture.stream):
                capture.graph.replay()
            capture.stream.synchronize()
            mask, confidence = capture.results.numpy().copy()
        return mask, confidence

    def _capture(self, shape: tuple[int, ...]) -> _Capture:
        """Record copy in, graph and copy out for a batch of this shape, so that a frame costs one launch."""
        images = torch.zeros(shape, dtype=torch.uint8).pin_memory()
        results = torch.zeros((2, *shape[:3]), dtype=torch.uint8).pin_memory()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        on_device = images.to(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # cuDNN and the allocator settle before anything is recorded
                self._forward(on_device)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use CUDA meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            on_device.copy_(images, non_blocking=True)
            mask, confidence = self._forward(on_device)
            results[0].copy_(mask, non_blocking=True)
            results[1].copy_(confidence, non_blocking=True)
        return _Capture(graph, stream, images, results, on_device)


def in_type(graph: DeploymentModule, precision: str) -> DeploymentModule:
    """The graph with weights in the precision's type, in place; logits are made fp32 where classes are chosen."""
    return graph.to(_TYPES.get(precision, torch.float32))


@dataclass(frozen=True)
class _Capture:
    """A recorded CUDA graph and the memory it reads and writes, which must live as long as it does.

    images (B, h, w, 3) and results (2, B, h, w) are pinned host memory, uint8.
    """

    graph: torch.cuda.CUDAGraph
    stream: torch.cuda.Stream
    images: Tensor
    results: Tensor
    on_device: Tensor


def _device(wanted: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if wanted == "auto":
        return torch.device("cuda:0" if cuda else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda":
        if not cuda:
            why = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA GPU"
            raise EngineError(
                f"device {wanted!r}: this PyTorch ({torch.__version__}) {why}; use device cpu, or "
                f"{see_docs('how-to/install.md')}"
            )
        device = torch.device("cuda", device.index or 0)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise EngineError(f"device {wanted!r}: this machine has {torch.cuda.device_count()} CUDA GPUs")
    return device


def _precision(wanted: str, device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        chosen = "fp16" if wanted == "auto" else wanted
        return chosen, f"PyTorch on {torch.cuda.get_device_name(device)}"
    if conflict := engine_conflict("torch", "cpu", wanted):
        raise EngineError(conflict)
    if wanted == "auto":
        return ("bf16", "this CPU has bf16") if cpu_has_bf16() else ("fp32", "this CPU has no bf16")
    return wanted, "as asked"
