# SPDX-License-Identifier: Apache-2.0
"""The deployment graph of a model, made for a target: what an engine reads and what ``canet export`` writes.

uint8 BGR images in, uint8 class ids and confidence out. Every stage is a file in the cache: the graph in fp32, from it
the graph in int8, from either the dialect of a target.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from canet_ros.errors import EngineError
from canet_ros.files import sha256
from canet_ros.hints import canet_command, pip_install
from canet_ros.model import cache, int8_scales
from canet_ros.model.int8_scales import ScalesError
from canet_ros.model.model_folder import (
    INT8_FILE,
    NETWORK_FILE,
    ModelError,
    Resolution,
    graph_hash,
    load_spec,
)
from canet_ros.model.onnx_interface import INPUT
from canet_ros.names import ENGINE_PRECISIONS

# Engines that read the graph, and their precisions.
TARGETS = {engine: precisions for engine, precisions in ENGINE_PRECISIONS.items() if engine != "torch"}
# Layers that int8 leaves in float. MobileNetV2's first blocks, whose depthwise weights span the widest ranges, cost 0.1
# to 0.2 points of mIoU in int8 and save a twentieth of the time. EfficientViT changes 2.5 % of the pixels in int8.
_UPSAMPLING_AND_ARGMAX = r"/classes/.*"
_BACKBONE_IN_FLOAT = {
    "mobilenet_v2": r"/context_branch/backbone/features\.[012]/.*",
    "efficientvit_b0": r"/context_branch/backbone/.*",
}


def deployment_graph(folder: Path, resolution: Resolution, target: str, precision: str) -> Path:
    """The model's graph as ONNX in the dialect of a target (see ``dialects``), in the cache; the batch is free.

    (B, h, w, 3) uint8 BGR images in, class ids and confidence out, (B, h, w) uint8 each.

    Raises:
        EngineError: the target does not take the precision, or the model is not calibrated for int8.
        ModelError: the model is broken.
        ModuleNotFoundError: the package ``onnx`` is missing.
    """
    if precision not in TARGETS[target]:
        raise EngineError(
            f"precision {precision}: the graph for {target} does not support it; use {', '.join(TARGETS[target])}"
        )
    if precision == "int8":
        plain = quantized_graph(folder, resolution)
    else:
        plain = exported_graph(folder, resolution, precision)
    in_half = precision == "fp16" or (precision == "int8" and target == "tensorrt")
    if target == "openvino" or not (in_half or target == "tensorrt"):
        return plain

    def write(path: Path) -> None:
        import onnx

        from canet_ros.model.dialects import for_tensorrt, half

        model = onnx.load(plain)
        if target == "tensorrt":
            for_tensorrt(model)
        if in_half:
            half(model)
        onnx.save(model, path)

    suffix = f"{precision}-{target}"
    if precision == "int8":
        suffix += f"-{cache.checksum(plain)[:8]}"
    return cache.derived_file(derived_name(folder, resolution, f"{suffix}.onnx"), write)


def exported_graph(folder: Path, resolution: Resolution, precision: str = "fp32") -> Path:
    """The model's graph as ONNX in the cache, in fp32, from which the dialects of all engines are made.

    Weights are rounded to what ``precision`` (fp32, fp16 or bf16) holds exactly, so that rounding shifts no layer's
    mean output. An imported network gets pre- and post-processing; its weights stay as they are.

    Raises:
        ModelError: the model is broken.
        ModuleNotFoundError: the package ``onnx`` is missing.
    """

    def write(path: Path) -> None:
        if importlib.util.find_spec("onnx") is None:
            raise ModuleNotFoundError(f"exporting a model takes the package onnx: {pip_install('onnx')}")
        spec = load_spec(folder)
        if spec.onnx is not None:
            from canet_ros.model.onnx_network import write_onnx_network

            write_onnx_network(folder, spec, resolution, path)
            return
        import onnx

        from canet_ros.model.graph_ends import deployment_model
        from canet_ros.model.network_file import load_network_file
        from canet_ros.model.network_graph import fold_batch_norms, round_network

        network = load_network_file(_network_file(folder), folder, spec, resolution)
        if precision in ("bf16", "fp16"):
            round_network(network, precision)
        else:
            fold_batch_norms(network)
        onnx.save(deployment_model(network, spec, resolution), str(path))

    return cache.derived_file(derived_name(folder, resolution, f"{precision}.onnx"), write)


def _network_file(folder: Path) -> Path:
    """``network.onnx`` of a model; if its folder has none for these weights, PyTorch writes one to the cache."""
    from canet_ros.model.network_file import is_current

    own = folder / NETWORK_FILE
    if is_current(own, folder, load_spec(folder)):
        return own
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"model {folder.name} has no {NETWORK_FILE} for its weights, and PyTorch, which writes it, is missing: run "
            f"'{canet_command(f'export --model {folder} --network')}' where it was trained, or {pip_install('torch')}"
        )
    from canet_ros.model.network_export import write_network

    name = f"{graph_hash(folder)[:16]}-{_code_hash()}/{NETWORK_FILE}"
    return cache.derived_file(name, lambda path: write_network(folder, path))


def quantized_graph(folder: Path, resolution: Resolution) -> Path:
    """The model's int8 graph as ONNX, in the cache: of the user's own ``calibrate``, else of the model's scales.

    Raises:
        EngineError: there are neither; the message says how to make them.
        ModelError: the model is broken.
    """
    if (path := cache.derived_file_there(derived_name(folder, resolution, "int8.onnx"))) is not None:
        return path

    def write(path: Path) -> None:
        import onnx

        assert scales is not None
        onnx.save(int8_scales.apply_scales(onnx.load(exported_graph(folder, resolution)), scales), path)

    try:
        scales = int8_scales.load_scales(folder)
        if scales is not None:
            suffix = f"int8-{sha256(folder / INT8_FILE)[:8]}.onnx"
            return cache.derived_file(derived_name(folder, resolution, suffix), write)
    except ScalesError as error:
        raise EngineError(f"precision int8: {error}") from error
    width, height = resolution
    command = canet_command(
        f"export --model {folder} --resolution {width}x{height} --calibrate FOLDER_OF_IMAGES"
    )
    raise EngineError(
        f"precision int8: model {folder.name} is not calibrated at {width}x{height}; run: {command}"
    )


def calibrate(folder: Path, resolution: Resolution, images: Sequence[NDArray[np.uint8]]) -> Path:
    """Quantise a model; what an earlier calibration left is replaced.

    Scales of weights (per channel) and activations are symmetric and come from the images; NNCF then corrects the
    biases. What is left in float runs in the engine's own best precision.

    Args:
        images: (h, w, 3) BGR at ``resolution``, a few dozen, as different as those that the model will see.

    Raises:
        ValueError: there are no images.
        ModuleNotFoundError: the package nncf is missing.
        ModelError: the model is broken.
    """
    if not images:
        raise ValueError("calibration takes at least one image")
    if importlib.util.find_spec("nncf") is None:
        raise ModuleNotFoundError(f"calibration takes the package nncf: {pip_install('nncf', 'onnx')}")
    import nncf
    import onnx

    of_backbone = _BACKBONE_IN_FLOAT.get(load_spec(folder).backbone)
    in_float = [_UPSAMPLING_AND_ARGMAX, *([of_backbone] if of_backbone else [])]

    def quantize(path: Path) -> None:
        quantized = nncf.quantize(
            onnx.load(exported_graph(folder, resolution)),
            nncf.Dataset(images, lambda image: {INPUT: image[None]}),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(patterns=in_float, validate=False),
        )
        onnx.save(quantized, path)

    return cache.derived_file(derived_name(folder, resolution, "int8.onnx"), quantize, anew=True)


def keep_scales(folder: Path, quantized: Path, resolution: Resolution) -> Path:
    """Write the scales of a graph of ``calibrate`` into the model's folder: int8 for everyone, at any resolution.

    Raises:
        ScalesError, OSError: as ``int8_scales``.
    """
    import onnx

    plain = onnx.load(exported_graph(folder, resolution))
    return int8_scales.save_scales(folder, int8_scales.extract_scales(plain, onnx.load(quantized)))


def derived_name(folder: Path, resolution: Resolution, suffix: str) -> str:
    """Name in the cache for what is derived from a model: changes with graph, resolution and this package's code."""
    width, height = resolution
    return f"{graph_hash(folder)[:16]}-{_code_hash()}/{width}x{height}-{suffix}"


@lru_cache
def _code_hash() -> str:
    """Of the code that decides what is derived, so that an upgrade of the package builds it again."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(path for part in ("model", "network") for path in (package / part).glob("*.py"))
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
