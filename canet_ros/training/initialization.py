# SPDX-License-Identifier: Apache-2.0
"""Initialise a network from a model folder or from an ImageNet file of its backbone."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from canet_ros.model.model_folder import SPEC_FILE, ModelError, load_network
from canet_ros.model.weights import weight_mismatches
from canet_ros.network import SegmentationNetwork
from canet_ros.network.heads import BilinearHead

# Layers of published files after the backbone: heads, and MobileNetV2's last 1x1 convolution.
_AFTER_THE_BACKBONE = ("classifier.", "fc.", "features.18.", "head.")


def initialize(network: SegmentationNetwork, source: str, classes: Sequence[str]) -> list[str]:
    """Load weights into ``network`` in place.

    Args:
        source: a model folder, or a file for ``read_backbone``. Where its head is of the same kind, the outputs of
            classes that both tables name are loaded; those of other classes keep their random weights.
        classes: names of the network's classes.

    Returns:
        Names of the network's tensors that were not loaded.

    Raises:
        ModelError: the weights do not fit; the message names every tensor that does not.
    """
    own = network.state_dict()
    if (Path(source) / SPEC_FILE).is_file():
        spec, given_network = load_network(Path(source))
        given = given_network.state_dict()
        if tuple(classes) != spec.classes.names and isinstance(network.head, BilinearHead):
            for name, tensor in given.items():
                if name.startswith("head."):
                    given[name] = _outputs_by_class(
                        own.get(name, tensor), classes, tensor, spec.classes.names
                    )
        shapes, given_shapes = ({name: t.shape for name, t in state.items()} for state in (own, given))
        skipped = {
            name
            for name in own.keys() | given.keys()
            if name.startswith("head.") and shapes.get(name) != given_shapes.get(name)
        }
        weights = {name: tensor for name, tensor in given.items() if name not in skipped}
        require_fit({name: tensor for name, tensor in own.items() if name not in skipped}, weights, source)
    else:
        prefix = next(name for name, module in network.named_modules() if module is network.backbone)
        given = read_backbone(Path(source), network.backbone.state_dict())
        weights = {f"{prefix}.{name}": tensor for name, tensor in given.items()}
    network.load_state_dict(weights, strict=False)
    return sorted(own.keys() - weights.keys())


def _outputs_by_class(
    own: Tensor, classes: Sequence[str], given: Tensor, given_classes: Sequence[str]
) -> Tensor:
    """``own`` with the outputs of ``given`` for the classes of both; a tensor of a head, outputs grouped by class."""
    outputs = len(own) // len(classes)
    if own.shape[1:] != given.shape[1:] or outputs * len(given_classes) != len(given):
        return given
    merged = own.clone().reshape(len(classes), outputs, *own.shape[1:])
    by_class = given.reshape(len(given_classes), outputs, *given.shape[1:])
    for index, name in enumerate(classes):
        if name in given_classes:
            merged[index] = by_class[given_classes.index(name)]
    return merged.reshape(own.shape)


def read_backbone(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a backbone, with the names and shapes of its state dict ``expected``.

    Args:
        file: ``.safetensors`` or a torch file with a state dict, loaded without executing anything in it. Names are
            torchvision's or, of EfficientViT, its authors'. Layers after the backbone are skipped.

    Raises:
        ModelError: the file has no state dict, or the message names every tensor that is missing, unexpected or of
            another shape.
    """
    state = read_state_dict(file)
    weights = {
        name.removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if not name.startswith(_AFTER_THE_BACKBONE)
    }
    for name, tensor in expected.items():
        # Missing in files older than torch 0.4.1, and not used here.
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, tensor)
    require_fit(expected, weights, str(file))
    return weights


def load_weights_file(file: Path) -> Any:
    """Content of a ``.safetensors`` or ``torch.save`` file, loaded without executing anything in it.

    Raises:
        ModelError: the file does not exist, is broken, or contains code.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:  # torch's message recommends weights_only=False
        raise ModelError(
            f"{file} is not a checkpoint: it is damaged, or contains more than tensors"
        ) from error
    except Exception as error:  # a broken file can raise anything in torch's unpickler
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{file} is not a checkpoint that can be loaded safely: {reason}") from error


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, also one among other content or of a DataParallel network; raises ModelError."""
    content = load_weights_file(file)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{file} does not contain a state dict")
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def require_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise ModelError, naming every tensor that is missing, unexpected or of another shape."""
    problems = weight_mismatches(expected, found)
    if problems:
        raise ModelError(f"{source} does not fit:\n  " + "\n  ".join(problems))
