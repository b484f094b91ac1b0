# SPDX-License-Identifier: Apache-2.0
"""Builds TensorRT plans: a graph in TensorRT's dialect, compiled for a GPU.

The module is ``tensorrt`` (10 and 11), or TensorRT for RTX (``tensorrt_rtx_bindings``) where only that is installed.
What of this ran, and what was only compiled: docs/how-to/jetson.md.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from canet_ros.engines.engine import EngineRequest
from canet_ros.errors import EngineError
from canet_ros.hints import engine_module
from canet_ros.model import cache
from canet_ros.model.deployment import deployment_graph, derived_name

_LEAST_RELEASE = 10  # types stand in the graph, which older ones ignore
_WORKSPACE_BYTES = 1 << 30  # of a Jetson's memory, which its CPU shares


@dataclass(frozen=True)
class Target:
    """What a plan is built for.

    Attributes:
        max_batch: images per call, from 1.
        precision: fp32, fp16 or int8.
        generations: compute capabilities, as (8, 6), for which TensorRT for RTX builds, which then needs no GPU;
            TensorRT builds for the GPU in use.
    """

    max_batch: int
    precision: str
    generations: tuple[tuple[int, int], ...] = ()


def tensorrt_module() -> ModuleType:
    """TensorRT's Python module.

    Raises:
        EngineError: it is too old.
        ModuleNotFoundError: it is not installed.
    """
    module = importlib.import_module(engine_module("tensorrt"))
    # TensorRT for RTX counts from 1, and is younger than 10.
    if "rtx" not in module.__name__ and int(module.__version__.partition(".")[0]) < _LEAST_RELEASE:
        raise EngineError(
            f"TensorRT {module.__version__} is too old: {_LEAST_RELEASE} or newer is needed (JetPack 6.1)"
        )
    return module


def build_plan(trt: Any, log: Any, graph: bytes, target: Target, detailed: bool = False) -> bytes:
    """Compile a graph in TensorRT's dialect to a serialised plan.

    Args:
        trt, log: the module and a logger of ``log_of``.
        graph: the ONNX file; its input is (B, h, w, 3) uint8 with a free or a fixed B.
        detailed: whether the plan keeps the names and types of its layers, which the log then lists.

    Raises:
        EngineError: the parser refuses the graph; the message has its reason.
        RuntimeError: the builder fails; the message has TensorRT's.
    """
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        error = parser.get_error(0)
        reason = " ".join(error.desc().split())
        raise EngineError(
            f"TensorRT's parser rejects the graph: {error.node_name()} ({error.node_operator()}): {reason}"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    # Its numbers are as coarse as those of fp16, and what the graph keeps in fp32 is meant.
    config.clear_flag(trt.BuilderFlag.TF32)
    pixels = network.get_input(0)
    if pixels.shape[0] == -1:
        rest = tuple(pixels.shape)[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(pixels.name, (1, *rest), (target.max_batch, *rest), (target.max_batch, *rest))
        config.add_optimization_profile(profile)
    if hasattr(config, "set_compute_capability"):
        names = [f"SM{major}{minor}" for major, minor in target.generations]
        ahead = [getattr(trt.ComputeCapability, name, None) for name in names]
        if ahead and None not in ahead:
            config.num_compute_capabilities = len(ahead)
            for place, generation in enumerate(ahead):
                config.set_compute_capability(generation, place)
    if detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"TensorRT cannot build a plan: {log.why()}")
    return bytes(plan)


def plan_file(trt: Any, log: Any, request: EngineRequest, target: Target, gpu_fingerprint: str) -> Path:
    """The plan in the cache, built if missing.

    A plan holds code for the GPU and is loaded without a check, so that it comes from our own cache alone.

    Raises:
        EngineError: another user may have written the plan, or as ``build_plan``.
        RuntimeError: as ``build_plan``.
    """
    graph = deployment_graph(request.folder, request.resolution, "tensorrt", target.precision)
    built_for = f"{version_of(trt)} {gpu_fingerprint} {target} {cache.checksum(graph)}"
    fingerprint = hashlib.sha256(built_for.encode()).hexdigest()
    suffix = f"{target.precision}-tensorrt-{fingerprint[:8]}.plan"

    def build(path: Path) -> None:
        path.write_bytes(build_plan(trt, log, graph.read_bytes(), target))

    plan = cache.derived_file(derived_name(request.folder, request.resolution, suffix), build)
    for path in (plan, plan.parent):
        found = path.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
            raise EngineError(
                f"{path} can be written by others, and a plan is code: chmod o-w it, or set CANET_ROS_CACHE to "
                "a folder of your own"
            )
    return plan


def log_of(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps warnings and errors: TensorRT's functions return nothing but success."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message)

        def why(self) -> str:
            return "; ".join(self.errors[-2:]) or "it gives no reason"

    return Log()


def version_of(trt: Any) -> str:
    return f"TensorRT {'for RTX ' if 'rtx' in trt.__name__ else ''}{trt.__version__}"
