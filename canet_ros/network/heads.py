# SPDX-License-Identifier: Apache-2.0
"""Heads: fused features at stride 8 to logits at image size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from canet_ros.names import HEADS


def build_head(name: str, in_channels: int, classes: int) -> nn.Module:
    """Build a head by name.

    Raises:
        ValueError: ``name`` is not one of ``names.HEADS``.
    """
    if name not in HEADS:
        raise ValueError(f"unknown head {name!r}: choose one of {', '.join(HEADS)}")
    head: nn.Module = globals()[HEADS[name]](in_channels, classes)
    return head


class BilinearHead(nn.Conv2d):
    """3x3 convolution to plain logits, then bilinear upsampling.

    With ``finer``, each feature yields finer x finer logits (sub-pixel convolution, Shi et al., CVPR 2016). Logits
    4 pixels apart resolve a pole 2 pixels wide, which logits 8 pixels apart miss.

    Attributes:
        stride_of_logits: distance between neighbouring logits in image pixels.
    """

    def __init__(self, in_channels: int, classes: int, finer: int = 1) -> None:
        super().__init__(in_channels, classes * finer**2, 3, padding=1)
        self.finer = finer
        self.stride_of_logits = 8 // finer

    def coarse_logits(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, classes, finer h, finer w)."""
        logits = super().forward(features)
        return logits if self.finer == 1 else F.pixel_shuffle(logits, self.finer)

    def forward(self, features: Tensor, size: tuple[int, int], stride: int = 1) -> Tensor:  # type: ignore[override]
        """(B, C, h, w) to ``(B, classes, *size)``, logits of every ``stride``-th pixel."""
        return upsample(self.coarse_logits(features), self.stride_of_logits, size, stride)


def upsample(coarse: Tensor, stride_of_logits: int, size: tuple[int, int], stride: int = 1) -> Tensor:
    """Upsample logits ``stride_of_logits`` pixels apart to ``(B, classes, *size)``, every ``stride``-th pixel."""
    height, width = (side * stride_of_logits // stride for side in coarse.shape[2:])
    # Cropped, not resized, where the image size is not a multiple of 8: resizing shifts the mask by up to 7 pixels.
    full = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return full[:, :, : size[0], : size[1]]


def subpixel_head(in_channels: int, classes: int) -> BilinearHead:
    """A head with a logit every 4 pixels; costs 4 ms at 1024x512."""
    return BilinearHead(in_channels, classes, finer=2)


class TransposedHead(nn.Module):
    """Head of the public Cityscapes checkpoint: learned x8 upsampling, ReLU after both convolutions.

    Only for those weights: its 15x15 convolution at full size takes longer than the rest of the network.
    """

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, classes, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(classes)
        self.deconv = nn.ConvTranspose2d(
            classes, classes, 15, stride=8, padding=7, output_padding=7, bias=False
        )
        self.deconv_bn = nn.BatchNorm2d(classes)

    def forward(self, features: Tensor, size: tuple[int, int], stride: int = 1) -> Tensor:
        """(B, C, h, w) to ``(B, classes, *size)``, logits of every ``stride``-th pixel."""
        logits = F.relu(self.bn(self.conv(features)))
        upsampled: Tensor = F.relu(self.deconv_bn(self.deconv(logits)))
        return upsampled[:, :, : size[0] * stride : stride, : size[1] * stride : stride]
