# SPDX-License-Identifier: Apache-2.0
"""What training, engines and benchmark need to know of a network in torch: CANet, or another that is written here."""

from __future__ import annotations

from torch import Tensor, nn

from canet_ros.network.backbones import Backbone


class SegmentationNetwork(nn.Module):
    """Normalised float RGB (B, 3, H, W) of any size in, class logits out.

    A class to derive from, as ``Backbone`` is, and not a Protocol: that cannot say that something is a module as well.
    """

    @property
    def stride_of_logits(self) -> int:
        """Pixels of the image between two of the ``coarse_logits``; 1 where they have the image's size."""
        raise NotImplementedError

    @property
    def backbone(self) -> Backbone:
        """What ImageNet files fill: it learns at a rate of its own, and its ``stem`` can be frozen."""
        raise NotImplementedError

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Logits (B, classes, h, w) before upsampling: h is H over ``stride_of_logits``, rounded up or more."""
        raise NotImplementedError

    def forward(self, image: Tensor, stride: int = 1) -> Tensor:
        """Logits (B, classes, H // stride, W // stride): those of every ``stride``-th pixel."""
        raise NotImplementedError
