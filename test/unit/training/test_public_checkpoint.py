# SPDX-License-Identifier: Apache-2.0
"""The importer, compared with a plain implementation of the public network with torch's functional operations and
the names of the public network. The published weights are not in this repository.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import load_network
from canet_ros.network import CANet

CLASSES = load_class_table("cityscapes")
STAGES = {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 3, 8: 3, 9: 3, 10: 3, 11: 3, 12: 3, 13: 3}


def published_weights() -> dict[str, Tensor]:
    """Random weights in the names and shapes of the public file, with non-trivial biases and running statistics."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int, scale: float = 0.3) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    weights: dict[str, Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{name}.weight"] = normal(*shape, scale=(2 / fan_in) ** 0.5)

    def batch_norm(name: str, channels: int) -> None:
        weights[f"{name}.weight"] = 1 + normal(channels, scale=0.1)
        weights[f"{name}.bias"] = normal(channels)
        weights[f"{name}.running_mean"] = normal(channels)
        weights[f"{name}.running_var"] = 1 + normal(channels).abs()
        weights[f"{name}.num_batches_tracked"] = torch.tensor(5)

    for index, (out, into) in enumerate(((64, 3), (128, 64), (256, 128))):
        conv(f"spatial_branch.{index}.0", out, into, 3, 3)
        batch_norm(f"spatial_branch.{index}.1", out)
    backbone = CANet(2).context_branch.backbone
    for name, tensor in backbone.state_dict().items():
        index = int(name.split(".")[1])
        key = name.replace(
            f"features.{index}.", f"context_branch.backbone.layer{STAGES.get(index, 4)}.{index}."
        )
        weights[key] = tensor
    for name, into, out, size in (
        ("context_branch.up1", 320, 192, 3),
        ("context_branch.up2", 288, 256, 3),
        ("up", 19, 19, 15),
    ):
        conv(f"{name}.up_conv.0", into, out, size, size)
        weights[f"{name}.up_conv.0.bias"] = normal(out)
        batch_norm(f"{name}.up_conv.1", out)
    for name, out, into in (("fca.conv_init", 256, 512), ("fca.sa.0", 1, 256), ("fca.conv_last", 19, 256)):
        conv(f"{name}.0", out, into, 3, 3)
        batch_norm(f"{name}.1", out)
    weights["fca.ca.fc.weight"], weights["fca.ca.fc.bias"] = normal(256, 256, scale=0.06), normal(256)
    return weights


def published_logits(weights: dict[str, Tensor], image: Tensor) -> Tensor:
    """The public network's forward pass."""

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return batch_norm(F.conv2d(x, weights[f"{name}.0.weight"], None, stride, 1), f"{name}.1")

    def upsample(x: Tensor, name: str, scale: int) -> Tensor:
        kernel = weights[f"{name}.up_conv.0.weight"]
        padding = (kernel.shape[-1] - 1) // 2
        bias = weights[f"{name}.up_conv.0.bias"]
        x = F.conv_transpose2d(x, kernel, bias, scale, padding, scale - 1)
        return batch_norm(x, f"{name}.up_conv.1").relu()

    spatial = image
    for index in range(3):
        spatial = conv(spatial, f"spatial_branch.{index}", stride=2).relu()
    backbone = CANet(2).context_branch.backbone
    backbone.load_state_dict(
        {
            "features." + key.split(".", 3)[3]: tensor
            for key, tensor in weights.items()
            if key.startswith("context_branch.backbone.")
        }
    )
    features_16, features_32 = backbone.eval()(image)
    context = torch.cat((upsample(features_32, "context_branch.up1", 2), features_16), 1)
    context = upsample(context, "context_branch.up2", 2)
    fused = conv(torch.cat((spatial, context), 1), "fca.conv_init").relu()
    pooled = context.amax((2, 3)), context.mean((2, 3))
    fc_weight, fc_bias = weights["fca.ca.fc.weight"], weights["fca.ca.fc.bias"]
    channel = torch.sigmoid(sum(F.linear(x, fc_weight, fc_bias) for x in pooled))[:, :, None, None]
    fused = fused * torch.sigmoid(conv(spatial, "fca.sa.0")) * channel + fused
    return upsample(conv(fused, "fca.conv_last").relu(), "up", 8)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return published_weights()


@pytest.mark.parametrize("wrapped", [False, True])
def test_imported_network_has_the_logits_of_the_original(
    weights: dict[str, Tensor], tmp_path: Path, wrapped: bool
) -> None:
    torch.save({"state_dict": weights, "epoch": 3} if wrapped else weights, tmp_path / "canet.pth")
    assert main(["import", str(tmp_path / "canet.pth"), "--out", str(tmp_path / "model")]) == 0
    spec, network = load_network(tmp_path / "model")
    assert spec.classes == CLASSES
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = published_logits(weights, image)
        assert expected.shape == (1, 19, 64, 96)
        assert expected.max() > 0.1
        torch.testing.assert_close(network(image), expected, atol=1e-4, rtol=0)
        assert network(torch.randn(1, 3, 37, 51)).shape == (1, 19, 37, 51)
