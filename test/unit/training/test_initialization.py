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


def flat_name(name: str) -> str:
    """The inverse of the importer: the flat name (conv, bn, activation) of torchvision's nested one."""
    pairs = {"conv.0.0.": "conv.0.", "conv.0.1.": "conv.1."}
    if name.startswith("features.1."):
        pairs |= {"conv.1.": "conv.3.", "conv.2.": "conv.4."}
    else:
        pairs |= {"conv.1.0.": "conv.3.", "conv.1.1.": "conv.4.", "conv.2.": "conv.6.", "conv.3.": "conv.7."}
    nested = next((nested for nested in pairs if nested in name), None)
    return name.replace(nested, pairs[nested]) if nested else name


def assert_initializes(source: Path, state: dict[str, torch.Tensor], backbone: str) -> None:
    network = CANet(3, backbone)
    assert not any(".backbone." in name for name in initialize(network, str(source), "abc"))
    loaded = network.context_branch.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


@pytest.mark.parametrize("layout", ["torchvision", "flat"])
def test_imagenet_files_of_mobilenet(layout: str, tmp_path: Path) -> None:
    state = CANet(3).context_branch.backbone.state_dict()
    state["features.18.0.weight"] = torch.zeros(1280, 320, 1, 1)
    path = tmp_path / "imagenet.pth"
    torch.save({flat_name(n) if layout == "flat" else n: t for n, t in state.items()}, path)
    assert_initializes(path, state, "mobilenet_v2")


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


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_imagenet_files_of_resnet(suffix: str, tmp_path: Path) -> None:
    state = CANet(3, "resnet18").context_branch.backbone.state_dict()
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"imagenet.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    assert_initializes(path, state, "resnet18")


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
