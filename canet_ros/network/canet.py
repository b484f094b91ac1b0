# SPDX-License-Identifier: Apache-2.0
"""CANet: Cross Attention Network for Semantic Segmentation (Liu and Yin, ICIP 2019, arXiv 1907.10958).

A shallow spatial branch preserves detail, a deep context branch captures context, and feature cross attention fuses
them at 1/8 of the input size (paper, section 2, figure 1). CANet-Lite is the same network with separable convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canet_ros.network.backbones import Backbone, build_backbone
from canet_ros.network.fusion import build_fusion
from canet_ros.network.heads import BilinearHead, build_head
from canet_ros.network.layers import (
    SeparableUpsample,
    TransposedUpsample,
    conv_bn_relu,
    separable_conv_bn_relu,
)
from canet_ros.network.segmentation_network import SegmentationNetwork


@dataclass(frozen=True)
class Architecture:
    """Channels of each part; with ``separable``, wide 3x3 convolutions are depthwise separable."""

    spatial_channels: tuple[int, int, int]
    context_channels: tuple[int, int]
    fused_channels: int
    separable: bool


SHAPES = {
    "canet": Architecture((64, 128, 256), (192, 256), 256, separable=False),
    "canet_lite": Architecture((32, 64, 128), (128, 128), 128, separable=True),
}


class SpatialBranch(nn.Sequential):
    """Three 3x3 stride-2 blocks (section 2.1): (B, 3, H, W) to (B, C, ceil(H/8), ceil(W/8))."""

    def __init__(self, architecture: Architecture) -> None:
        first, second, third = architecture.spatial_channels
        block = separable_conv_bn_relu if architecture.separable else conv_bn_relu
        super().__init__(
            conv_bn_relu(3, first, stride=2), block(first, second, stride=2), block(second, third, stride=2)
        )


class ContextBranch(nn.Module):
    """Backbone features, upsampled from stride 32 through stride 16 to stride 8 (section 2.1)."""

    def __init__(self, backbone: str, architecture: Architecture) -> None:
        super().__init__()
        first, second = architecture.context_channels
        upsample = SeparableUpsample if architecture.separable else TransposedUpsample
        self.backbone = build_backbone(backbone)
        self.upsample_16 = upsample(self.backbone.channels_32, first)
        self.upsample_8 = upsample(first + self.backbone.channels_16, second)

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) to ``(B, C, *size)``, ``size`` being an eighth of the image, rounded up."""
        features_16, features_32 = self.backbone(image)
        upsampled_16 = self.upsample_16(features_32, _size(features_16))
        upsampled_8: Tensor = self.upsample_8(torch.cat((upsampled_16, features_16), dim=1), size)
        return upsampled_8


class CANet(SegmentationNetwork):
    """Maps a normalised image to class logits.

    Args:
        classes: number of classes.
        backbone: one of ``names.BACKBONES``.
        fusion: one of ``names.FUSIONS``.
        architecture: one of ``SHAPES``.
        head: one of ``names.HEADS``.

    Raises:
        ValueError: an unknown backbone, fusion, architecture or head, or fewer than two classes.
    """

    def __init__(
        self,
        classes: int,
        backbone: str = "mobilenet_v2",
        fusion: str = "fca",
        architecture: str = "canet",
        head: str = "bilinear",
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a segmentation network needs at least 2 classes, not {classes}")
        if architecture not in SHAPES:
            raise ValueError(f"unknown architecture {architecture!r}: choose one of {', '.join(SHAPES)}")
        shape = SHAPES[architecture]
        self.spatial_branch = SpatialBranch(shape)
        self.context_branch = ContextBranch(backbone, shape)
        # Built before the fusion: for one seed, networks differ in nothing but the fusion's initial weights.
        self.head = build_head(head, shape.fused_channels, classes)
        self.fusion = build_fusion(
            fusion, shape.spatial_channels[-1], shape.fused_channels, separable=shape.separable
        )

    def fused_features(self, image: Tensor) -> Tensor:
        """Features (B, C, ceil(H/8), ceil(W/8)) of both branches of an image (B, 3, H, W) after fusion."""
        spatial: Tensor = self.spatial_branch(image)
        fused: Tensor = self.fusion(spatial, self.context_branch(image, _size(spatial)))
        return fused

    @property
    def backbone(self) -> Backbone:
        return self.context_branch.backbone

    @property
    def stride_of_logits(self) -> int:
        return self.head.stride_of_logits if isinstance(self.head, BilinearHead) else 1

    def coarse_logits(self, image: Tensor) -> Tensor:
        if not isinstance(self.head, BilinearHead):
            full: Tensor = self(image)
            return full
        return self.head.coarse_logits(self.fused_features(image))

    def forward(self, image: Tensor, stride: int = 1) -> Tensor:
        """Logits (B, classes, H, W) of a normalised float RGB image (B, 3, H, W) of any size.

        With ``stride``, logits of every ``stride``-th pixel: (B, classes, H // stride, W // stride).
        """
        height, width = _size(image)
        logits: Tensor = self.head(self.fused_features(image), (height // stride, width // stride), stride)
        return logits


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]
