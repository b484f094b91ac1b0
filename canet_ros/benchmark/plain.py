# SPDX-License-Identifier: Apache-2.0
"""A model as it is usually run, to compare with: fp32, everything at full size, no step of it tuned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canet_ros.inference.export import INPUT
from canet_ros.inference.model_folder import (
    MODEL_FILE,
    ModelSpec,
    Resolution,
    load_network,
    load_spec,
)
from canet_ros.opencv import resize

Masks = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def plain_masks(folder: Path, resolution: Resolution) -> Masks:
    """Pictures (B, h, w, 3) BGR to class ids (B, h, w): in PyTorch, eager, or of an ONNX network in ONNX Runtime."""
    spec = load_spec(folder)
    if spec.onnx is not None:
        return _of_onnx(folder, spec, resolution)
    network = load_network(folder)[1]

    def masks(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rgb = torch.from_numpy(pictures).permute(0, 3, 1, 2).flip(1)
        with torch.inference_mode():
            ids: NDArray[np.uint8] = network(spec.normalize(rgb)).argmax(1).to(torch.uint8).numpy()
        return ids

    return masks


def _of_onnx(folder: Path, spec: ModelSpec, resolution: Resolution) -> Masks:
    from canet_ros.inference.onnx_file import read_onnx
    from canet_ros.inference.onnx_network import onnx_runner, pixels_to_logits, pixels_to_output

    assert spec.onnx is not None
    network, has_logits = read_onnx(folder / MODEL_FILE), spec.onnx.gives != "ids"
    run = onnx_runner(
        pixels_to_logits(network, spec.onnx, len(spec.classes), resolution)
        if has_logits
        else pixels_to_output(network, spec.onnx, resolution)
    )

    def mask(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = run({INPUT: picture[None]})
        if has_logits:
            full = cv2.resize(found[0].transpose(1, 2, 0), resolution)
            ids: NDArray[np.uint8] = full.argmax(2).astype(np.uint8)
            return ids
        return resize(np.squeeze(found).astype(np.uint8), resolution, cv2.INTER_NEAREST)

    return lambda pictures: np.stack([mask(picture) for picture in pictures])
