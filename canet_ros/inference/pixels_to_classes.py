# SPDX-License-Identifier: Apache-2.0
"""One graph from the pixels of a picture to class ids: what every engine runs, and what is exported.

Only bytes go in and only bytes come out; normalisation, network, upsampling and argmax stay on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from canet_ros.inference.model_folder import ModelSpec
from canet_ros.network import CANet


class PixelsToClasses(nn.Module):
    """uint8 pictures (B, h, w, 3) BGR to uint8 class ids (B, h, w) and uint8 confidence (B, h, w).

    Confidence is the softmax probability of the chosen class, 0..255.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: ModelSpec, network: CANet) -> None:
        super().__init__()
        self.network = network
        mean_bgr = 255 * torch.tensor(spec.mean[::-1])
        scale_bgr = 1 / (255 * torch.tensor(spec.std[::-1]))
        self.register_buffer("mean", mean_bgr.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", scale_bgr.view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        bgr = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        logits = self.network(((bgr - self.mean) * self.scale).flip(1))
        best, mask = logits.max(dim=1)
        confidence = 255 / (logits - best.unsqueeze(1)).exp().sum(dim=1)
        return mask.to(torch.uint8), (confidence + 0.5).to(torch.uint8)
