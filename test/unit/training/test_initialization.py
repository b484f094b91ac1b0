# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: ImageNet weights of the backbone, or another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import ModelError, ModelSpec, load_network, save_model
from canet_ros.network import CANet
from canet_ros.training.initialization import initialize


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state = CANet(3, "resnet18").context_branch.backbone.state_dict()
    del state["bn1.weight"], state["layer1.0.bn1.bias"]
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ModelError) as raised:
        initialize(CANet(3, "resnet18"), str(tmp_path / "part.pth"), "abcdefghijklmnopqrst"[:3])
    for name in ("bn1.weight", "layer1.0.bn1.bias", "conv1.weight", "extra.weight"):
        assert f"\n  {name} " in str(raised.value)
    assert str(raised.value).count("\n  ") == 4


@pytest.mark.parametrize(
    ("backbone", "prefix", "after", "suffix"),
    [
        ("mobilenet_v2", "", "features.18.0", "pth"),
        ("resnet18", "", "fc", "pth"),
        ("resnet18", "", "fc", "safetensors"),
        ("efficientvit_b0", "backbone.", "head.middle.op_list.0", "pth"),
    ],
)
def test_published_files(backbone: str, prefix: str, after: str, suffix: str, tmp_path: Path) -> None:
    state = CANet(3, backbone).context_branch.backbone.state_dict()
    path = tmp_path / f"published.{suffix}"
    content = {**{prefix + name: tensor for name, tensor in state.items()}, f"{after}.weight": torch.zeros(9)}
    torch.save(content, path) if suffix == "pth" else save_file(content, path)
    network = CANet(3, backbone)
    assert not any(".backbone." in name for name in initialize(network, str(path), "abc"))
    loaded = network.context_branch.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def test_a_model_of_another_architecture_is_refused(random_model: Path) -> None:
    with pytest.raises(ModelError, match=r"upsample_8\.deconv\.weight is missing"):
        initialize(CANet(4, architecture="canet"), str(random_model), "abcd")


def test_a_head_that_does_not_fit_starts_anew(random_model: Path, tmp_path: Path) -> None:
    """Other classes, coarser logits, and the head of the public network."""
    lite = {"architecture": "canet_lite"}
    spec = ModelSpec("public", load_class_table("cityscapes"), head="transposed")
    save_model(tmp_path / "public", spec, spec.build_network())
    for network, source, names in (
        (CANet(11, head="subpixel", **lite), random_model, load_class_table("camvid").names),
        (CANet(19), tmp_path / "public", load_class_table("cityscapes").names),
    ):
        assert initialize(network, str(source), names) == ["head.bias", "head.weight"]


@pytest.mark.parametrize("head", ["bilinear", "subpixel"])
@pytest.mark.parametrize(
    "names", [("kerb", "road", "sky"), tuple(reversed(load_class_table("camvid").names))]
)
def test_the_head_keeps_the_outputs_of_classes_that_both_tables_name(
    head: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    table = load_class_table("camvid")
    spec = ModelSpec("source", table, architecture="canet_lite", head=head)
    source = spec.build_network().eval()
    save_model(tmp_path, spec, source, half=False)
    network = CANet(len(names), architecture="canet_lite", head=head).eval()
    initialize(network, str(tmp_path), names)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours, theirs = network(image), source(image)
    for index, name in enumerate(names):
        if name in table.names:
            assert torch.allclose(ours[:, index], theirs[:, table.names.index(name)], atol=1e-5)


CLASSES = load_class_table("cityscapes")
# Our names and those of the public file.
PUBLIC_NAMES = {
    "context_branch.upsample_16.deconv.": "context_branch.up1.up_conv.0.",
    "context_branch.upsample_16.bn.": "context_branch.up1.up_conv.1.",
    "context_branch.upsample_8.deconv.": "context_branch.up2.up_conv.0.",
    "context_branch.upsample_8.bn.": "context_branch.up2.up_conv.1.",
    "fusion.merge.": "fca.conv_init.",
    "fusion.spatial_attention.": "fca.sa.0.",
    "fusion.channel_attention.": "fca.ca.fc.",
    "head.conv.": "fca.conv_last.0.",
    "head.bn.": "fca.conv_last.1.",
    "head.deconv.": "up.up_conv.0.",
    "head.deconv_bn.": "up.up_conv.1.",
    **{f"context_branch.backbone.features.{i}.": f"context_branch.backbone.layer{1 + (i > 3) + (i > 6) + (i > 13)}.{i}."
       for i in range(18)},
}  # fmt: skip


def published_weights() -> dict[str, Tensor]:
    """Random weights in the names and shapes of the public file, with non-trivial biases and running statistics."""
    torch.manual_seed(1)
    weights: dict[str, Tensor] = {}
    for name, tensor in CANet(19, head="transposed").state_dict().items():
        key = name
        for ours, theirs in PUBLIC_NAMES.items():
            key = key.replace(ours, theirs)
        if ".backbone." not in name and tensor.ndim == 1:
            tensor = 0.2 * torch.randn_like(tensor) + (0 if "mean" in name or "bias" in name else 1)
        weights[key] = tensor.abs() if "var" in name else tensor
        if key.endswith("up_conv.0.weight"):
            weights[key.replace("weight", "bias")] = 0.3 * torch.randn(tensor.shape[1])
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


def test_imported_network_has_the_logits_of_the_original(tmp_path: Path) -> None:
    weights = published_weights()
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "canet.pth")
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
