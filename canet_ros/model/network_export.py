# SPDX-License-Identifier: Apache-2.0
"""PyTorch's part of a model: its ``network.onnx``, and the rounding of the torch engine's weights."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from canet_ros.files import atomic_write
from canet_ros.hints import pip_install
from canet_ros.model.deployment_module import DeploymentModule
from canet_ros.model.model_folder import NETWORK_FILE, WEIGHTS_FILE, ModelSpec, load_network
from canet_ros.model.onnx_interface import OPSET
from canet_ros.model.rounding import round_convolution
from canet_ros.network import SegmentationNetwork

Convolution = nn.Conv2d | nn.ConvTranspose2d

_NOISE_IMAGES = 2


class _CoarseLogits(nn.Module):
    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.coarse_logits(image)


def write_network(folder: Path, file: Path | None = None) -> None:
    """Write ``network.onnx`` into a model's folder, so that engines other than torch run it without PyTorch.

    Args:
        file: where to write it instead.

    Raises:
        ModelError: the model is broken.
        ModuleNotFoundError: the package ``onnx`` is missing.
        OSError: the file cannot be written.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ModuleNotFoundError(f"writing {NETWORK_FILE} takes the package onnx: {pip_install('onnx')}")
    import onnx

    from canet_ros.model.network_file import describe, point_into_weights
    from canet_ros.model.network_graph import IMAGE, LOGITS, fold_constants

    spec, network = load_network(folder)
    # The exporter of torch.export requires more packages and PyTorch 2.5; prefer the older one.
    older: dict[str, Any] = (
        {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    )
    with atomic_write(file or folder / NETWORK_FILE) as path:
        with warnings.catch_warnings(), torch.inference_mode():
            # Of the older exporter's age, and of sizes that become constants: they should.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _CoarseLogits(network).eval(),
                (torch.zeros(1, 3, 64, 64),),
                str(path),
                input_names=[IMAGE],
                output_names=[LOGITS],
                dynamic_axes={
                    IMAGE: {0: "batch", 2: "height", 3: "width"},
                    LOGITS: {0: "batch", 2: "rows", 3: "columns"},
                },
                opset_version=OPSET,
                # Batch norms stay nodes, and weights keep their names.
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                **older,
            )
        model = onnx.load(str(path))
        _name_weights(model.graph)
        fold_constants(model)
        describe(model, folder, spec, _means_by_node(spec, network, model.graph))
        point_into_weights(model, folder / WEIGHTS_FILE)
        onnx.save(model, str(path))


def _name_weights(graph: Any) -> None:
    """Give weights their names in the state dict, equal ones (which the exporter merges) that of the first."""
    from canet_ros.model.onnx_graph import rename_inputs

    names = {value.name: value.name.removeprefix("network.") for value in graph.initializer}
    for node in [one for one in graph.node if one.op_type == "Identity" and one.input[0] in names]:
        names[node.output[0]] = names[node.input[0]]
        graph.node.remove(node)
    for value in graph.initializer:
        value.name = names[value.name]
    rename_inputs(graph.node, names)


def _means_by_node(
    spec: ModelSpec, network: SegmentationNetwork, graph: Any
) -> dict[str, NDArray[np.float32]]:
    """Mean of each input channel of each convolution at the model's resolution, by the name of its ONNX node."""
    module = DeploymentModule(spec, network, spec.resolution).eval()
    _fold_batch_norms(module)
    weights = {convolution: f"{name}.weight" for name, convolution in module.network.named_modules()}
    means = {weights[one]: mean for one, mean in _mean_inputs(module, *spec.resolution).items()}
    nodes = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    # The head is not called as a module, and stays as it is.
    return {node.name: means[node.input[1]] for node in nodes if node.input[1] in means}


@torch.no_grad()
def round_weights(graph: nn.Module, width: int, height: int, precision: str) -> None:
    """Fold batch norms into convolutions and round weights and biases to bf16 or fp16, in place; see ``rounding``."""
    _fold_batch_norms(graph)
    for convolution, mean in _mean_inputs(graph, width, height).items():
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        weight, bias = round_convolution(
            convolution.weight.numpy(),
            None if convolution.bias is None else convolution.bias.numpy(),
            mean,
            precision,
            convolution.stride[0] * convolution.stride[1] if transposed else 0,
        )
        convolution.weight.copy_(torch.from_numpy(weight))
        if convolution.bias is not None:
            convolution.bias.copy_(torch.from_numpy(bias))


def _fold_batch_norms(module: nn.Module) -> None:
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before and isinstance(before[1], Convolution):
            transposed = isinstance(before[1], nn.ConvTranspose2d)
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child, transpose=transposed))
            setattr(module, name, nn.Identity())
        else:
            _fold_batch_norms(child)
        before = (name, child)


@torch.no_grad()
def _mean_inputs(graph: nn.Module, width: int, height: int) -> dict[Convolution, NDArray[np.float32]]:
    """Of blurred noise: any image does, and a user need not have one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (_NOISE_IMAGES, 3, 12, 16), generator=generator).float()
    images = nn.functional.interpolate(noise, (height, width), mode="bilinear").to(torch.uint8)
    means: dict[Convolution, list[Tensor]] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Convolution)
        means.setdefault(module, []).append(inputs[0].mean((0, 2, 3)))

    hooks = [m.register_forward_pre_hook(record) for m in graph.modules() if isinstance(m, Convolution)]
    for image in images.permute(0, 2, 3, 1):
        graph(image[None])
    for hook in hooks:
        hook.remove()
    return {module: torch.stack(found).mean(0).numpy() for module, found in means.items()}
