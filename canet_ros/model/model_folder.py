# SPDX-License-Identifier: Apache-2.0
"""A model is a folder: ``model.yaml`` describes it, ``weights.safetensors`` holds the state dict.

With ``network: onnx`` the network is imported, and ``model.onnx`` holds graph and weights.
Loading never executes anything from the files, and every tensor's name and shape is checked.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from canet_ros.errors import ModelError as ModelError
from canet_ros.files import sha256, write_text
from canet_ros.formats import Resolution as Resolution
from canet_ros.formats import parse_resolution as parse_resolution
from canet_ros.hints import canet_command
from canet_ros.model.class_table import ClassTable, parse_class_table
from canet_ros.model.onnx_interface import OnnxInterface, floats, parse_onnx_interface
from canet_ros.model.untrusted import read_yaml
from canet_ros.model.weights import hash_weights, read_weights, require_fit, require_hash, write_weights
from canet_ros.names import NETWORKS
from canet_ros.share import share_folders

if TYPE_CHECKING:  # engines with exported graphs start without torch
    from torch import Tensor

    from canet_ros.network import SegmentationNetwork

SPEC_FILE = "model.yaml"
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.onnx"
NETWORK_FILE = "network.onnx"
INT8_FILE = "int8.safetensors"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Fields of ModelSpec that are not part of ``graph_hash``; any other field, also a new one, is.
_OUTSIDE_THE_GRAPH = (
    *("name", "classes", "resolution", "training", "metrics", "familiar", "weights_sha256"),
    "hidden_channels",  # the weights have them in their shapes
)


@dataclass(frozen=True)
class ModelSpec:
    """Contents of ``model.yaml``.

    Attributes:
        resolution: (width, height) of the network's input, pixels.
        mean, std: per RGB channel, of images scaled to 0..1.
        training: where the weights come from: data, licence, command line.
        metrics: measured figures.
        temperature: what the logits are divided by before the softmax, so that confidences are true.
        weights_sha256: of the weights' file, hex; empty: not checked.
        familiar: (lowest, highest) of each figure of ``ood_monitor`` on in-distribution images; empty: unknown.
        hidden_channels: of the backbone's blocks, by number, that have fewer than the paper gives them.
        onnx: of an imported ONNX network; its architecture is ``onnx``, and the fields of our architectures are empty.
    """

    name: str
    classes: ClassTable
    architecture: str = "canet"
    backbone: str = "mobilenet_v2"
    fusion: str = "fca"
    head: str = "bilinear"
    resolution: Resolution = (480, 360)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    familiar: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    hidden_channels: Mapping[int, int] = field(default_factory=dict)
    onnx: OnnxInterface | None = None
    weights_sha256: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _name(self.name)
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"mean {list(self.mean)}, std {list(self.std)}: expected numbers, std above 0")
        if not 0.01 <= self.temperature <= 100:
            raise ValueError(f"temperature: expected a number from 0.01 to 100, got {self.temperature}")

    def require_free_size(self) -> None:
        """Raise ModelError if the network takes images of its resolution alone."""
        if self.onnx is not None and not self.onnx.free_size:
            width, height = self.resolution
            raise ModelError(
                f"model {self.name} takes images of {width}x{height} only: leave resolution empty"
            )

    def build_network(self) -> SegmentationNetwork:
        """The network this model names, with random weights."""
        from canet_ros.network import build_network

        network = build_network(len(self.classes), self.backbone, self.fusion, self.architecture, self.head)
        network.backbone.narrow(self.hidden_channels)
        return network

    def normalize(self, rgb: Tensor) -> Tensor:
        """Pixels of 0..255, RGB (B, 3, H, W) of any type, as the network takes them, float32."""
        pixels = rgb.float() / 255
        mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def available_models() -> dict[str, Path]:
    """Name and folder of every model that can be loaded by name."""
    models: dict[str, Path] = {}
    for folder in share_folders("models"):
        for spec_file in sorted(folder.glob(f"*/{SPEC_FILE}")):
            models.setdefault(spec_file.parent.name, spec_file.parent)
    return models


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a model given by its name under models/ or by its path.

    Raises:
        ModelError: no such model exists; the message lists the available ones.
    """
    as_path = Path(name_or_path).expanduser()
    if (as_path / SPEC_FILE).is_file():
        return as_path
    models = available_models()
    if str(name_or_path) in models:
        return models[str(name_or_path)]
    known = ", ".join(models) or "none"
    raise ModelError(f"no model {str(name_or_path)!r}: give a folder with {SPEC_FILE}, or one of: {known}")


def shipped_model(architecture: str, backbone: str) -> str:
    """Name of the model that comes with the package for an architecture and a backbone.

    Raises:
        ModelError: none does.
    """
    prefix = f"{architecture}-{backbone}-"
    for name in available_models():
        if name.startswith(prefix):
            return name
    known = ", ".join(available_models()) or "none"
    raise ModelError(
        f"no shipped model for architecture {architecture!r} with backbone {backbone!r}: "
        f"set 'model' to a model folder (made by '{canet_command('train')}'), or choose from: {known}"
    )


def load_spec(folder: Path) -> ModelSpec:
    """Read and check ``model.yaml``.

    Raises:
        ModelError: the file is missing, is not YAML, or lacks or misspells something.
    """
    path = folder / SPEC_FILE
    try:
        raw = read_yaml(path)
        if not isinstance(raw, dict):
            raise ValueError("expected entries like name: my_model")
        _refuse_misspelt(raw)
        network = raw.get("network", "torch")
        if network not in NETWORKS:
            raise ValueError(f"unknown network {network!r}: choose one of {', '.join(NETWORKS)}")
        common: dict[str, Any] = {
            "name": _name(raw["name"]),
            "classes": parse_class_table(raw["classes"]),
            "resolution": parse_resolution(str(raw["resolution"])),
            "training": _mapping(raw, "training"),
            "metrics": _mapping(raw, "metrics"),
            "weights_sha256": str(raw.get("weights_sha256") or ""),
            "temperature": floats("temperature", [raw.get("temperature", 1.0)], 1, "a number")[0],
            "familiar": {
                name: floats(f"familiar: {name}", value, 2, "[lowest, highest]")
                for name, value in _mapping(raw, "familiar").items()
            },
        }
        if network == "onnx":
            interface = parse_onnx_interface(raw)
            return ModelSpec(**common, architecture="onnx", backbone="", fusion="", head="", onnx=interface)
        channels: Mapping[Any, Any] = _mapping(raw, "hidden_channels")
        if not all(type(number) is int for number in (*channels, *channels.values())):
            raise ValueError(f"hidden_channels: expected numbers of blocks and of channels, got {channels}")
        return ModelSpec(
            **common,
            architecture=str(raw["architecture"]),
            backbone=str(raw["backbone"]),
            hidden_channels=channels,
            fusion=str(raw["fusion"]),
            head=str(raw.get("head", "bilinear")),
            mean=floats("mean", raw["mean"]),
            std=floats("std", raw["std"]),
        )
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except KeyError as error:
        raise ModelError(f"{path}: the entry {error} is missing") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: {' '.join(str(error).split())[:500]}") from error


def load_network(folder: Path) -> tuple[ModelSpec, SegmentationNetwork]:
    """The model's spec and its network with its weights, fp32, in eval mode, on the CPU.

    Raises:
        ModelError: a file is missing or broken, or a tensor's name or shape does not fit the spec.
    """
    import torch

    spec = load_spec(folder)
    if spec.onnx is not None:
        raise ModelError(
            f"model {spec.name} is an ONNX network; this requires a PyTorch network, made by 'canet train'"
        )
    path = folder / WEIGHTS_FILE
    found = hash_weights(path)
    weights = read_weights(path)
    try:
        network = spec.build_network()
    except ValueError as error:
        raise ModelError(f"{folder / SPEC_FILE}: {error}") from error
    expected = network.state_dict()
    require_fit(path, SPEC_FILE, expected, weights)
    require_hash(path, spec.weights_sha256, found)
    network.load_state_dict(
        {name: torch.from_numpy(numbers).to(expected[name].dtype) for name, numbers in weights.items()}
    )
    return spec, network.eval()


def save_model(folder: Path, spec: ModelSpec, network: SegmentationNetwork, half: bool = True) -> None:
    """Write a model folder; ``half`` stores floating-point weights as fp16. Raises OSError where it cannot."""
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu()
        for name, tensor in network.state_dict().items()
    }
    write_weights(folder / WEIGHTS_FILE, weights)
    save_spec(folder, spec)


def save_spec(folder: Path, spec: ModelSpec) -> None:
    """Write ``model.yaml``; raises OSError where it cannot."""
    ours = ("architecture", "backbone", "hidden_channels", "fusion", "head", "mean", "std")
    network = (
        {"network": "onnx", **spec.onnx.yaml} if spec.onnx else {name: getattr(spec, name) for name in ours}
    )
    raw: dict[str, Any] = {
        "name": spec.name,
        **network,
        "resolution": f"{spec.resolution[0]}x{spec.resolution[1]}",
        "classes": [
            {"name": name, "color": color} for name, color in zip(spec.classes.names, spec.classes.colors)
        ],
        "temperature": spec.temperature,
        "familiar": dict(spec.familiar),
        "training": dict(spec.training),
        "metrics": dict(spec.metrics),
    }
    for name, usual in (("hidden_channels", {}), ("temperature", 1), ("familiar", {})):
        if raw.get(name) == usual:
            del raw[name]
    if (folder / WEIGHTS_FILE).is_file():
        raw["weights_sha256"] = sha256(folder / WEIGHTS_FILE)
    text = yaml.dump(raw, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)
    write_text(folder / SPEC_FILE, "# SPDX-License-Identifier: Apache-2.0\n" + text)


def graph_hash(folder: Path) -> str:
    """SHA-256 of the weights and of what shapes the graph, hex: the key of everything that is derived from the model.

    Names and colours of the classes, training and metrics leave the graph as it is.

    Raises:
        ModelError: the model is broken.
    """
    spec = load_spec(folder)
    shape = {one.name: getattr(spec, one.name) for one in fields(spec) if one.name not in _OUTSIDE_THE_GRAPH}
    digest = hashlib.sha256(repr((len(spec.classes), shape)).encode())
    for path in _weight_files(folder):
        digest.update((hash_weights(path) if path.name == WEIGHTS_FILE else sha256(path)).encode())
    return digest.hexdigest()


def _name(value: Any) -> str:
    """A name is shown, logged, and part of paths."""
    name = str(value) if isinstance(value, (str, int, float)) else ""
    if not name.strip() or len(name) > 100 or not name.isprintable() or "/" in name or name in (".", ".."):
        raise ValueError(f"name {str(value)[:100]!r}: expected up to 100 printable characters without /")
    return name


def _mapping(raw: Mapping[str, Any], entry: str) -> Mapping[str, Any]:
    value = raw.get(entry) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{entry}: expected entries, got {type(value).__name__}")
    return value


def weights_file(folder: Path) -> Path:
    """The main file of a model's weights; an ONNX network may have further ones next to it."""
    own = folder / MODEL_FILE
    return own if own.is_file() else folder / WEIGHTS_FILE


def _weight_files(folder: Path) -> list[Path]:
    """Of an ONNX network all that is in the folder but what we add to it."""
    if weights_file(folder).name == WEIGHTS_FILE:
        return [folder / WEIGHTS_FILE]
    ours = (SPEC_FILE, INT8_FILE, "selftest.png", "selftest_mask.png")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ours)


def _refuse_misspelt(raw: Mapping[str, Any]) -> None:
    """Entries of the user's own are allowed; one that is nearly an entry that is missing is not."""
    entries = {"network", "input", "output", *(one.name for one in fields(ModelSpec))}
    for entry in raw.keys() - entries:
        if near := difflib.get_close_matches(str(entry), entries - raw.keys(), 1, 0.8):
            raise ValueError(f"unknown entry {entry!r}: did you mean {near[0]!r}?")


class _Dumper(yaml.SafeDumper):
    """Writes again what occurs twice: aliases are not taken when it is read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
