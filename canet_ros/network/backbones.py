# SPDX-License-Identifier: Apache-2.0
"""Backbones of the context branch, without classifier and without final 1x1 convolution.

The state-dict keys of MobileNetV2 and ResNet are those of ``torchvision.models``, so that torchvision's ImageNet files
load as they are.

Every backbone maps an image (B, 3, H, W) to its features at stride 16 and at stride 32:
(B, ``channels_16``, ceil(H/16), ceil(W/16)) and (B, ``channels_32``, ceil(H/32), ceil(W/32)).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from canet_ros.names import BACKBONES


class Backbone(nn.Module):
    """Interface between a backbone and the context branch."""

    channels_16: int
    channels_32: int

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features at stride 16 and stride 32 of a float image (B, 3, H, W)."""
        raise NotImplementedError

    def stem(self) -> list[nn.Module]:
        """Layers of stride 4 and finer; they take half of the time of a training step."""
        raise NotImplementedError

    def narrow(self, hidden_channels: Mapping[int, int]) -> None:
        """Replace blocks, by number, with randomly initialised ones that have fewer hidden channels.

        Raises:
            ValueError: no such block, or the block already has fewer channels.
        """
        if hidden_channels:
            raise ValueError(f"hidden_channels: {type(self).__name__} has no blocks that can be narrowed")


def build_backbone(name: str) -> Backbone:
    """A randomly initialised backbone.

    Raises:
        ValueError: ``name`` is not one of ``names.BACKBONES``.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    module, _, builder = BACKBONES[name].partition(".")
    backbone: Backbone = getattr(importlib.import_module(f"canet_ros.network.{module}"), builder)()
    return backbone


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (Sandler et al., MobileNetV2, CVPR 2018, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, hidden: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride, self.hidden = stride, hidden
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(_conv_bn_relu6(in_channels, hidden, kernel_size=1))
        layers += [
            _conv_bn_relu6(hidden, hidden, kernel_size=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.has_shortcut else out


class MobileNetV2(Backbone):
    """MobileNetV2 at width 1.0 up to its last inverted residual (torchvision's ``features.0`` to ``features.17``)."""

    channels_16 = 96
    channels_32 = 320
    _stages = (  # expansion, channels, blocks, stride: MobileNetV2, table 2
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    _last_block_at_stride_16 = 13

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, 32, kernel_size=3, stride=2)]
        in_channels = 32
        for expansion, channels, blocks, stride in self._stages:
            for block in range(blocks):
                hidden = in_channels * expansion
                layers.append(InvertedResidual(in_channels, channels, stride if block == 0 else 1, hidden))
                in_channels = channels
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features_16 = self.features[: self._last_block_at_stride_16 + 1](image)
        return features_16, self.features[self._last_block_at_stride_16 + 1 :](features_16)

    def stem(self) -> list[nn.Module]:
        return [self.features[:4]]

    def narrow(self, hidden_channels: Mapping[int, int]) -> None:
        for number, hidden in hidden_channels.items():
            block = self.features[number] if 0 < number < len(self.features) else None
            if not isinstance(block, InvertedResidual):
                raise ValueError(f"hidden_channels: MobileNetV2 has no block {number} that can be narrowed")
            if not block.in_channels < hidden <= block.hidden:
                raise ValueError(
                    f"hidden_channels: {hidden} of block {number} does not fit MobileNetV2, where it takes "
                    f"{block.in_channels + 1} to {block.hidden}"
                )
            self.features[number] = InvertedResidual(
                block.in_channels, block.out_channels, block.stride, hidden
            )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, figure 5 left)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (He et al., CVPR 2016, figure 5 right; stride on the 3x3)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(Backbone):
    """ResNet without average pool and ``fc`` (He et al., CVPR 2016, table 1)."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _residual_stage(block, 64, 64, blocks[0], stride=1)
        self.layer2 = _residual_stage(block, 64 * block.expansion, 128, blocks[1], stride=2)
        self.layer3 = _residual_stage(block, 128 * block.expansion, 256, blocks[2], stride=2)
        self.layer4 = _residual_stage(block, 256 * block.expansion, 512, blocks[3], stride=2)
        self.channels_16 = 256 * block.expansion
        self.channels_32 = 512 * block.expansion

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        features_16 = self.layer3(self.layer2(self.layer1(x)))
        return features_16, self.layer4(features_16)

    def stem(self) -> list[nn.Module]:
        return [self.conv1, self.bn1, self.layer1]


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))


def _conv_bn_relu6(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def _residual_stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(blocks - 1)))
