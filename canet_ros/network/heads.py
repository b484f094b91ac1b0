# SPDX-License-Identifier: Apache-2.0
"""From fused features at stride 8 to logits at the size of the image."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from canet_ros.names import HEADS


def build_head(name: str, in_channels: int, classes: int) -> nn.Module:
    """A head by name.

    Raises:
        ValueError: ``name`` is not one of ``names.HEADS``.
    """
    if name not in HEADS:
        raise ValueError(f"unknown head {name!r}: choose one of {', '.join(HEADS)}")
    head: nn.Module = globals()[HEADS[name]](in_channels, classes)
    return head


class BilinearHead(nn.Conv2d):
    """3x3 convolution to plain logits, then bilinear upsampling.

    With ``finer`` every feature gives finer x finer logits (Shi et al., sub-pixel convolution, CVPR 2016): a pole two
    pixels wide is lost between logits 8 pixels apart, and can be told by logits 4 pixels apart.

    Attributes:
        stride_of_logits: pixels of the image between two logits.
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
    """Logits ``stride_of_logits`` pixels apart to ``(B, classes, *size)``, those of every ``stride``-th pixel."""
    height, width = (side * stride_of_logits // stride for side in coarse.shape[2:])
    # Cut, not stretched, where the image is no multiple of 8: a stretched mask is up to 7 pixels off at its end.
    full = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return full[:, :, : size[0], : size[1]]


def subpixel_head(in_channels: int, classes: int) -> BilinearHead:
    """A logit every 4 pixels: finer masks for 4 ms at 1024x512."""
    return BilinearHead(in_channels, classes, finer=2)


class TransposedHead(nn.Module):
    """The head of the public Cityscapes checkpoint: a learned x8 upsampling, and ReLU after both convolutions.

    Kept so that those weights run; its 15x15 convolution at full size costs more than the rest of the network.
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
