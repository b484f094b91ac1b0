# SPDX-License-Identifier: Apache-2.0
"""Models as ONNX: uint8 BGR images in, uint8 class ids and confidence out; what the dialects are made from."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canet_ros.hints import pip_install
from canet_ros.inference import cache
from canet_ros.inference.model_folder import Resolution, graph_hash, load_network, load_spec
from canet_ros.inference.onnx_interface import INPUT as INPUT
from canet_ros.inference.onnx_interface import OUTPUTS as OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 17


def derived_name(folder: Path, resolution: Resolution, suffix: str) -> str:
    """Name in the cache for what is derived from a model: changes with graph, resolution and this package's code."""
    width, height = resolution
    return f"{graph_hash(folder)[:16]}-{_code_hash()}/{width}x{height}-{suffix}"


def exported_graph(folder: Path, resolution: Resolution, precision: str = "fp32") -> Path:
    """The model's graph as ONNX in the cache, in fp32, from which the dialects of all engines are made.

    Weights are rounded to what ``precision`` (fp32, fp16 or bf16) holds exactly, so that rounding shifts no layer's
    mean output. A network that came as ONNX is put between our ends; its weights stay as they came.

    Raises:
        ModelError: the model is broken.
        ModuleNotFoundError: the package ``onnx`` is missing.
    """
    name = derived_name(folder, resolution, f"{precision}.onnx")
    return cache.derived_file(name, lambda path: write_onnx(folder, resolution, path, precision))


def write_onnx(folder: Path, resolution: Resolution, path: Path, precision: str = "fp32") -> None:
    """Export a model. The batch dimension stays free, height and width are fixed; raises as ``exported_graph``."""
    if importlib.util.find_spec("onnx") is None:
        raise ModuleNotFoundError(f"exporting a model takes the package onnx: {pip_install('onnx')}")
    spec = load_spec(folder)
    if spec.onnx is not None:
        from canet_ros.inference.onnx_network import write_onnx_network

        write_onnx_network(folder, spec, resolution, path)
        return
    import torch

    from canet_ros.inference.pixels_to_classes import PixelsToClasses
    from canet_ros.inference.rounding import round_weights

    spec, network = load_network(folder)
    graph = PixelsToClasses(spec, network, resolution).eval()
    width, height = resolution
    if precision in ("bf16", "fp16"):
        round_weights(graph, width, height, torch.bfloat16 if precision == "bf16" else torch.float16)
    to_onnx(
        graph,
        {INPUT: torch.zeros(1, height, width, 3, dtype=torch.uint8)},
        path,
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
    )


def to_onnx(graph: nn.Module, inputs: Mapping[str, Tensor], path: Path, **options: Any) -> None:
    """Write a module as ONNX; ``inputs`` by name, ``options`` as torch.onnx.export has them."""
    import torch

    # torch.export's exporter takes more packages and PyTorch 2.5; where there is a choice, take the older one.
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with warnings.catch_warnings(), torch.inference_mode():
        # Of the older exporter's age, and of sizes that become constants: they should.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            opset_version=OPSET,
            **options,
        )


@lru_cache
def _code_hash() -> str:
    """Of the code that decides what is derived, so that an upgrade of the package builds anew."""
    inference = Path(__file__).resolve().parent
    sources = sorted((inference.parent / "network").glob("*.py"))
    sources += [
        inference / f"{name}.py"
        for name in (
            "deployment",
            "dialects",
            "export",
            "int8_scales",
            "onnx_network",
            "pixels_to_classes",
            "quantization",
            "rounding",
        )
    ]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
