# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: ImageNet weights of the backbone, or another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import ModelError, ModelSpec, save_model
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
    assert not any(".backbone." in name for name in initialize(network, str(source)))
    loaded = network.context_branch.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


@pytest.mark.parametrize("layout", ["torchvision", "flat"])
def test_imagenet_files_of_mobilenet(layout: str, tmp_path: Path) -> None:
    state = CANet(3).context_branch.backbone.state_dict()
    state["features.18.0.weight"] = torch.zeros(1280, 320, 1, 1)
    path = tmp_path / "imagenet.pth"
    torch.save({flat_name(n) if layout == "flat" else n: t for n, t in state.items()}, path)
    assert_initializes(path, state, "mobilenet_v2")


def test_imported_imagenet_files_start_a_training(tmp_path: Path) -> None:
    state = CANet(3, "resnet18").context_branch.backbone.state_dict()
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "imagenet.pth")
    imported = tmp_path / "imagenet" / "backbone.safetensors"
    arguments = ["import", str(tmp_path / "imagenet.pth"), "--backbone", "resnet18", "--out", str(imported)]
    assert main(arguments) == 0
    assert_initializes(imported, state, "resnet18")


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = CANet(3, "resnet18").context_branch.backbone.state_dict()
    del state["bn1.weight"], state["layer1.0.bn1.bias"]
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "part.pth")
    arguments = ["import", str(tmp_path / "part.pth"), "--backbone", "resnet18", "--out", "x.safetensors"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    for name in ("bn1.weight", "layer1.0.bn1.bias", "conv1.weight", "extra.weight"):
        assert f"\n  {name} is " in error
    assert error.count("\n  ") == 4


def test_a_model_of_another_architecture_is_refused(random_model: Path) -> None:
    with pytest.raises(ModelError, match=r"upsample_8\.deconv\.weight is missing"):
        initialize(CANet(4, architecture="canet"), str(random_model))


def test_a_head_that_does_not_fit_starts_anew(random_model: Path, tmp_path: Path) -> None:
    """Other classes, coarser logits, and the head of the public network."""
    lite = {"architecture": "canet_lite"}
    spec = ModelSpec("public", load_class_table("cityscapes"), head="transposed")
    save_model(tmp_path / "public", spec, spec.build_network())
    for network, source in (
        (CANet(4, **lite), random_model),
        (CANet(11, head="subpixel", **lite), random_model),
        (CANet(19), tmp_path / "public"),
    ):
        assert initialize(network, str(source)) == ["head.bias", "head.weight"]
