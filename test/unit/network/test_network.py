# SPDX-License-Identifier: Apache-2.0
"""The network matches the paper: sizes, inputs of both attention maps, gradients, parameter names.

Accuracy is tested in test_models.py, agreement between engines in test_engines.py.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from canet_ros.names import ARCHITECTURES, BACKBONES, FUSIONS
from canet_ros.network import CANet
from canet_ros.network.backbones import build_backbone
from canet_ros.network.efficient_vit import linear_attention
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
        ("efficientvit_b0", 11, "canet_lite", "subpixel", 0.844),
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


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_of_a_backbone_have_strides_16_and_32(backbone: str) -> None:
    network = build_backbone(backbone).eval()
    with torch.inference_mode():
        features_16, features_32 = network(torch.randn(2, 3, 65, 96))
    assert features_16.shape == (2, network.channels_16, 5, 6)
    assert features_32.shape == (2, network.channels_32, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_linear_attention_is_the_authors_quotient(dtype: torch.dtype) -> None:
    """Also where a sum over all pixels exceeds what half precision holds, and where a query or a key is all zeros."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 16, 128 * 256)
    key, value = 4 * key, 8 * value
    query[..., 7], key[:, :, 3] = -1, -1
    positive, keys = query.relu().double(), key.relu().double()
    expected = value.double() @ keys.transpose(2, 3) @ positive
    assert expected.max() > torch.finfo(torch.float16).max
    expected /= keys.sum(3)[:, :, None] @ positive + 1e-15
    attended = linear_attention(query.to(dtype), key.to(dtype), value.to(dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 0.01
    torch.testing.assert_close(attended.double(), expected, rtol=tolerance, atol=tolerance)


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
        (
            "efficientvit_b0",
            (
                "input_stem.op_list.1.main.depth_conv.norm.weight",
                "stages.2.op_list.0.main.inverted_conv.conv.bias",
                "stages.3.op_list.2.context_module.main.aggreg.0.1.weight",
            ),
        ),
    ],
)
def test_backbone_keys_are_those_of_published_files(backbone: str, names: tuple[str, ...]) -> None:
    keys = CANet(2, backbone).context_branch.backbone.state_dict().keys()
    assert set(names) <= keys
    assert not any(key.startswith(("fc.", "classifier.", "features.18.")) for key in keys)
