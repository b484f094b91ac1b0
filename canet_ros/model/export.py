# SPDX-License-Identifier: Apache-2.0
"""Models as ONNX: uint8 BGR images in, uint8 class ids and confidence out; what the dialects are made from."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from canet_ros.hints import canet_command, pip_install
from canet_ros.model import cache
from canet_ros.model.model_folder import (
    NETWORK_FILE,
    ModelError,
    Resolution,
    graph_hash,
    load_spec,
)
from canet_ros.model.onnx_interface import INPUT as INPUT
from canet_ros.model.onnx_interface import OUTPUTS as OUTPUTS

OPSET = 17


def derived_name(folder: Path, resolution: Resolution, suffix: str) -> str:
    """Name in the cache for what is derived from a model: changes with graph, resolution and this package's code."""
    width, height = resolution
    return f"{graph_hash(folder)[:16]}-{_code_hash()}/{width}x{height}-{suffix}"


def exported_graph(folder: Path, resolution: Resolution, precision: str = "fp32") -> Path:
    """The model's graph as ONNX in the cache, in fp32, from which the dialects of all engines are made.

    Weights are rounded to what ``precision`` (fp32, fp16 or bf16) holds exactly, so that rounding shifts no layer's
    mean output. An imported network gets pre- and post-processing; its weights stay as they are.

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
    import onnx

    spec = load_spec(folder)
    if spec.onnx is not None:
        from canet_ros.model.onnx_network import write_onnx_network

        write_onnx_network(folder, spec, resolution, path)
        return
    from canet_ros.model.graph_ends import deployment_model
    from canet_ros.model.network_file import load_network_file
    from canet_ros.model.network_graph import fold_batch_norms, round_network

    network = load_network_file(network_file(folder), folder, spec, resolution)
    if precision in ("bf16", "fp16"):
        round_network(network, precision)
    else:
        fold_batch_norms(network)
    onnx.save(deployment_model(network, spec, resolution), str(path))


def network_file(folder: Path) -> Path:
    """``network.onnx`` of a model; if its folder has none for these weights, PyTorch writes one to the cache.

    Raises:
        ModelError: the model is broken, or needs PyTorch, which is missing.
    """
    from canet_ros.model.network_file import is_current

    own = folder / NETWORK_FILE
    if is_current(own, folder, load_spec(folder)):
        return own
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"model {folder.name} has no {NETWORK_FILE} for its weights, and PyTorch, which writes it, is missing: run "
            f"'{canet_command(f'export --model {folder} --network')}' where it was trained, or {pip_install('torch')}"
        )

    def write(path: Path) -> None:
        from canet_ros.model.network_export import write_network_to

        write_network_to(folder, path)

    return cache.derived_file(f"{graph_hash(folder)[:16]}-{_code_hash()}/{NETWORK_FILE}", write)


@lru_cache
def _code_hash() -> str:
    """Of the code that decides what is derived, so that an upgrade of the package builds it again."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(path for part in ("model", "network") for path in (package / part).glob("*.py"))
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
