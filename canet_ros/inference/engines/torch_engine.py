# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU or on CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from canet_ros.inference.engines import EngineError, EngineRequest
from canet_ros.inference.model_folder import load_network
from canet_ros.inference.pixels_to_classes import PixelsToClasses

_AUTOCAST_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """channels_last, inference mode, autocast where the precision says so; only bytes cross to and from the device."""

    name = "torch"

    def __init__(self, request: EngineRequest) -> None:
        device = _device(request.device)
        self.device = str(device)
        self.precision, self.reason = _precision(request.precision, device)
        spec, network = load_network(request.folder)
        graph = PixelsToClasses(spec, network).eval()
        self._graph = graph.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        width, height = request.resolution
        self.run(np.zeros((1, height, width, 3), np.uint8))

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        autocast_type = _AUTOCAST_TYPES.get(self.precision)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, autocast_type, enabled=autocast_type is not None),
        ):
            mask, confidence = self._graph(torch.from_numpy(images).to(self._device))
        return mask.cpu().numpy(), confidence.cpu().numpy()


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX-512 BF16, AMX, or Arm's)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _device(wanted: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if wanted == "auto":
        return torch.device("cuda:0" if cuda else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise EngineError(f"unknown device {wanted!r}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not cuda:
            why = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA GPU"
            raise EngineError(
                f"device {wanted!r}: this PyTorch ({torch.__version__}) {why}; use device cpu, or see docs/install.md"
            )
        device = torch.device("cuda", device.index or 0)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise EngineError(f"device {wanted!r}: this machine has {torch.cuda.device_count()} CUDA GPUs")
    return device


def _precision(wanted: str, device: torch.device) -> tuple[str, str]:
    if wanted == "int8":
        raise EngineError("precision int8: the torch engine has none; use fp32, fp16 or bf16")
    if device.type == "cuda":
        chosen = "fp16" if wanted == "auto" else wanted
        return chosen, f"PyTorch on {torch.cuda.get_device_name(device)}"
    if wanted == "fp16":
        raise EngineError("precision fp16: slow on a CPU; use bf16 or fp32 there")
    if wanted == "auto":
        return ("bf16", "this CPU has bf16") if cpu_has_bf16() else ("fp32", "this CPU has no bf16")
    return wanted, "as asked"
