# SPDX-License-Identifier: Apache-2.0
"""Interface of a PyTorch network to training, engines and benchmark."""

from __future__ import annotations

from torch import Tensor, nn

from canet_ros.network.backbones import Backbone


class SegmentationNetwork(nn.Module):
    """Maps a normalised float RGB image (B, 3, H, W) of any size to class logits.

    A base class, because a Protocol cannot require nn.Module.
    """

    @property
    def stride_of_logits(self) -> int:
        """Distance of neighbouring ``coarse_logits`` in image pixels; 1 at image size."""
        raise NotImplementedError

    @property
    def backbone(self) -> Backbone:
        """Part that ImageNet weights initialise; has its own learning rate, and its ``stem`` can be frozen."""
        raise NotImplementedError

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Logits (B, classes, h, w) before upsampling: h is at least H / ``stride_of_logits``, rounded up."""
        raise NotImplementedError

    def forward(self, image: Tensor, stride: int = 1) -> Tensor:
        """Logits (B, classes, H // stride, W // stride): those of every ``stride``-th pixel."""
        raise NotImplementedError
