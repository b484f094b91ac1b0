# SPDX-License-Identifier: Apache-2.0
"""Start a network from what another one has learned: a model folder, or an ImageNet file of its backbone."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from canet_ros.inference.model_folder import SPEC_FILE, load_network
from canet_ros.network import CANet


def initialize(network: CANet, source: str) -> list[str]:
    """Load weights into ``network`` in place.

    Args:
        source: a model folder (of another class table too: the head then starts anew), or a ``.pt``/``.pth`` file
            with the state dict of the backbone in torchvision's names, or in MobileNetV2's flat older ones.

    Returns:
        Names of the network's tensors that were left as they were.

    Raises:
        ValueError: the file does not hold the backbone, or a shape differs.
    """
    if (Path(source) / SPEC_FILE).is_file():
        weights = load_network(Path(source))[1].state_dict()
        own = network.state_dict()
        fitting = {
            name: tensor
            for name, tensor in weights.items()
            if not name.startswith("head.") or (name in own and tensor.shape == own[name].shape)
        }
        return _load(network, fitting, source)
    state = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"{source}: expected a state dict, found {type(state).__name__}")
    prefix = "context_branch.backbone."
    names = {name[len(prefix) :] for name in network.state_dict() if name.startswith(prefix)}
    flat = "features.1.conv.0.weight" in state
    renamed = {_nested_name(name) if flat else name: tensor for name, tensor in state.items()}
    missing = sorted(name for name in names - renamed.keys() if not name.endswith("num_batches_tracked"))
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} tensors of the backbone, first {missing[0]!r}")
    return _load(network, {prefix + name: renamed[name] for name in names & renamed.keys()}, source)


def _load(network: CANet, weights: dict[str, Tensor], source: str) -> list[str]:
    own = network.state_dict()
    for name, tensor in weights.items():
        if name not in own:
            raise ValueError(f"{source}: {name} is not in this network")
        if own[name].shape != tensor.shape:
            raise ValueError(f"{source}: {name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}")
    network.load_state_dict(weights, strict=False)
    return sorted(own.keys() - weights.keys())


def _nested_name(name: str) -> str:
    """``features.2.conv.4.weight`` of the flat layout (conv, bn, activation, ...) in torchvision's nested names."""
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(\w+)", name)
    if match is None:
        return name
    block, layer, tensor = int(match[1]), int(match[2]), match[3]
    if block == 1:  # the only block without expansion
        nested = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}
    else:
        nested = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
    return f"features.{block}.conv.{nested[layer]}.{tensor}"
