# SPDX-License-Identifier: Apache-2.0
"""The network matches the paper: sizes, inputs of both attention maps, gradients, parameter names.

Accuracy is tested in test_models.py, agreement between engines in test_engines.py.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from canet_ros.names import ARCHITECTURES, FUSIONS
from canet_ros.network import CANet
from canet_ros.network.fusion import FeatureCrossAttention
from canet_ros.network.heads import BilinearHead
from canet_ros.network.layers import SeparableUpsample, TransposedUpsample


def parameters_in_millions(network: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


@pytest.mark.parametrize(
    ("backbone", "classes", "architecture", "head", "millions"),
    [
        ("mobilenet_v2", 11, "canet", "bilinear", 4.674),
        ("mobilenet_v2", 19, "canet", "bilinear", 4.692),
        ("resnet18", 11, "canet", "bilinear", 14.74),
        ("mobilenet_v2", 11, "canet_lite", "bilinear", 1.963),
        ("mobilenet_v2", 11, "canet", "subpixel", 4.750),
        ("mobilenet_v2", 11, "canet_lite", "subpixel", 2.002),
    ],
)
def test_parameter_count(backbone: str, classes: int, architecture: str, head: str, millions: float) -> None:
    network = CANet(classes, backbone, architecture=architecture, head=head)
    assert parameters_in_millions(network) == pytest.approx(millions, rel=0.001)


@pytest.mark.parametrize("head", ["bilinear", "subpixel"])
def test_a_bilinear_head_interpolates_its_coarse_logits(head: str) -> None:
    network = CANet(11, head=head).eval()
    assert isinstance(network.head, BilinearHead)
    stride = network.head.stride_of_logits
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        coarse = network.coarse_logits(image)
        full = network(image)
    assert coarse.shape == (1, 11, 64 // stride, 96 // stride)
    torch.testing.assert_close(full, interpolate(coarse, (64, 96), mode="bilinear"))


@pytest.mark.parametrize("upsample", [SeparableUpsample, TransposedUpsample])
def test_an_odd_size_does_not_shift_upsampled_features(
    upsample: type[SeparableUpsample] | type[TransposedUpsample],
) -> None:
    layer = upsample(16, 8).eval()
    features = torch.randn(1, 16, 12, 9)
    odd, even = layer(features, (23, 17)), layer(features, (24, 18))
    torch.testing.assert_close(odd[:, :, :-1, :-1], even[:, :, :22, :16])


def attention_of(network: CANet) -> FeatureCrossAttention:
    assert isinstance(network.fusion, FeatureCrossAttention)
    return network.fusion


def test_cross_attention_is_the_papers_formula() -> None:
    fusion = attention_of(CANet(4).eval())
    spatial, context = torch.randn(2, 256, 5, 7), torch.randn(2, 256, 5, 7)
    with torch.inference_mode():
        fused = fusion.merge(torch.cat((spatial, context), 1))
        expected = fused * fusion.spatial_map(spatial) * fusion.channel_map(context) + fused
        torch.testing.assert_close(fusion(spatial, context), expected)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_every_parameter(fusion: str, architecture: str) -> None:
    torch.manual_seed(0)
    network = CANet(3, fusion=fusion, architecture=architecture).train()
    network(torch.randn(2, 3, 64, 96)).square().mean().backward()
    missing = [
        name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert not missing
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.spatial_branch.parameters())


def test_logits_are_plain() -> None:
    with torch.inference_mode():
        logits = CANet(6).eval()(torch.randn(1, 3, 64, 64))
    assert logits.min() < 0, "a ReLU on the logits would leave none below zero"


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        (
            "mobilenet_v2",
            ("features.0.0.weight", "features.1.conv.1.weight", "features.17.conv.3.running_var"),
        ),
        ("resnet18", ("conv1.weight", "layer2.0.downsample.1.bias", "layer4.1.bn2.running_mean")),
        ("resnet50", ("bn1.weight", "layer1.0.downsample.0.weight", "layer3.5.conv3.weight")),
        ("resnet101", ("layer3.22.bn3.weight",)),
    ],
)
def test_backbone_keys_are_torchvisions(backbone: str, names: tuple[str, ...]) -> None:
    keys = CANet(2, backbone).context_branch.backbone.state_dict().keys()
    assert set(names) <= keys
    assert not any(key.startswith(("fc.", "classifier.", "features.18.")) for key in keys)
