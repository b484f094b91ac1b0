# SPDX-License-Identifier: Apache-2.0
"""Start a network from what another one has learned: a model folder, or an ImageNet file of its backbone."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from canet_ros.inference.model_folder import SPEC_FILE, ModelError, load_network, weight_mismatches
from canet_ros.network import SegmentationNetwork

# What ImageNet files hold beside the backbone: classifiers, and MobileNetV2's last 1x1 convolution.
_AFTER_THE_BACKBONE = ("classifier.", "fc.", "features.18.")


def initialize(network: SegmentationNetwork, source: str) -> list[str]:
    """Load weights into ``network`` in place.

    Args:
        source: a model folder (of another class table too: the head then starts anew), or a file that
            ``read_backbone`` takes.

    Returns:
        Names of the network's tensors that were left as they were.

    Raises:
        ModelError: the weights do not fit; every tensor that does not is named.
    """
    own = network.state_dict()
    if (Path(source) / SPEC_FILE).is_file():
        given = load_network(Path(source))[1].state_dict()
        shapes, given_shapes = ({name: t.shape for name, t in state.items()} for state in (own, given))
        anew = {
            name
            for name in own.keys() | given.keys()
            if name.startswith("head.") and shapes.get(name) != given_shapes.get(name)
        }
        weights = {name: tensor for name, tensor in given.items() if name not in anew}
        _require_fit({name: tensor for name, tensor in own.items() if name not in anew}, weights, source)
    else:
        prefix = next(name for name, module in network.named_modules() if module is network.backbone)
        given = read_backbone(Path(source), network.backbone.state_dict())
        weights = {f"{prefix}.{name}": tensor for name, tensor in given.items()}
    network.load_state_dict(weights, strict=False)
    return sorted(own.keys() - weights.keys())


def read_backbone(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a backbone, in the names and shapes of its own state dict ``expected``.

    Args:
        file: ``.safetensors``, or a torch file of a state dict, loaded without executing anything in it; in
            torchvision's names, or in MobileNetV2's flat older ones. The classifier after the backbone is left out.

    Raises:
        ModelError: the file is no such thing; every tensor that is missing, left over or of another shape is named.
    """
    state = load_weights_file(file)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{file} holds no state dict")
    flat = "features.1.conv.0.weight" in state
    weights = {
        _nested_name(name) if flat else name: tensor
        for name, tensor in state.items()
        if not name.startswith(_AFTER_THE_BACKBONE)
    }
    for name, tensor in expected.items():
        # Files older than torch 0.4.1 lack it; nothing here reads it.
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, tensor)
    _require_fit(expected, weights, str(file))
    return weights


def load_weights_file(file: Path) -> Any:
    """What a ``.safetensors`` file, or one of ``torch.save``, holds; nothing in it is executed.

    Raises:
        ModelError: there is no such file, it is broken, or it holds code.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:  # torch advises to switch the safety off
        raise ModelError(f"{file} is no checkpoint: it is damaged, or holds more than tensors") from error
    except Exception as error:  # torch raises whatever its unpickler meets in a broken file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{file} is no checkpoint that can be loaded safely: {reason}") from error


def _require_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    problems = weight_mismatches(expected, found)
    if problems:
        raise ModelError(f"{source} does not fit:\n  " + "\n  ".join(problems))


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
