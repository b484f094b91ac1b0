# SPDX-License-Identifier: Apache-2.0
"""Builds TensorRT plans: a graph in TensorRT's dialect, compiled for a GPU.

The module is ``tensorrt`` (8.6 of JetPack 6.0, 10 and 11), or TensorRT for RTX (``tensorrt_rtx_bindings``) where only
that is installed. What of this ran, and what was only compiled: docs/how-to/jetson.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from canet_ros import activity
from canet_ros.engines.engine import EngineRequest
from canet_ros.errors import EngineError
from canet_ros.hints import canet_command, engine_module
from canet_ros.model import cache
from canet_ros.model.deployment import deployment_graph, derived_name

_LEAST_RELEASE = (8, 6)
_WORKSPACE_BYTES = 1 << 30  # of a Jetson's memory, which its CPU shares


@dataclass(frozen=True)
class Target:
    """What a plan is built for.

    Attributes:
        max_batch: images per call, from 1.
        precision: fp32, fp16 or int8.
        dla: number of the DLA core that runs what it can; None: the GPU alone.
        generations: compute capabilities, as (8, 6), for which TensorRT for RTX builds, which then needs no GPU;
            TensorRT builds for the GPU in use.
    """

    max_batch: int
    precision: str
    dla: int | None = None
    generations: tuple[tuple[int, int], ...] = ()


def tensorrt_module() -> ModuleType:
    """TensorRT's Python module.

    Raises:
        EngineError: it is too old.
        ModuleNotFoundError: it is not installed.
    """
    module = importlib.import_module(engine_module("tensorrt"))
    if _release(module) < _LEAST_RELEASE:
        raise EngineError(f"TensorRT {module.__version__} is too old: 8.6 or newer is needed (JetPack 6)")
    return module


def build_plan(
    trt: Any,
    log: Any,
    graph: bytes,
    target: Target,
    timings: bytes = b"",
    detailed: bool = False,
) -> tuple[bytes, bytes, str]:
    """Compile a graph in TensorRT's dialect.

    Args:
        trt, log: the module and a logger of ``log_of``.
        graph: the ONNX file; its input is (B, h, w, 3) uint8 with a free or a fixed B.
        timings: TensorRT's timing cache of an earlier build on this GPU.
        detailed: whether the plan keeps the names and types of its layers, which the log then lists.

    Returns:
        The serialised plan, the timing cache (empty where there is none), and remarks about the build.

    Raises:
        EngineError: the parser refuses the graph; the message has its reason.
        RuntimeError: the builder fails; the message has TensorRT's.
    """
    notes: list[str] = []
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    # Types stand in the graph. TensorRT 8 has no such networks and chooses by flags, as do networks for a DLA.
    typed = hasattr(flags, "STRONGLY_TYPED") and target.dla is None
    kind = 1 << int(flags.STRONGLY_TYPED) if typed else 0
    if hasattr(flags, "EXPLICIT_BATCH") and _release(trt) < (10,):
        kind |= 1 << int(flags.EXPLICIT_BATCH)
    network = builder.create_network(kind)
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
    for name in () if typed else {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}[target.precision]:
        if not hasattr(trt.BuilderFlag, name):
            raise EngineError(
                f"this TensorRT ({trt.__version__}) cannot build for a DLA in {target.precision}"
            )
        config.set_flag(getattr(trt.BuilderFlag, name))
    pixels = network.get_input(0)
    if target.dla is not None:  # for what it can run, and the GPU for the rest
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = target.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        able = sum(config.can_run_on_DLA(layer) for layer in layers)
        notes.append(f"{able} of {len(layers)} layers on DLA {target.dla}, the others on the GPU")
        pixels.shape = (1, *tuple(pixels.shape)[1:])  # it takes no free dimension
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
    known = None if "rtx" in trt.__name__ else config.create_timing_cache(timings)  # where it has no effect
    if known is not None:
        config.set_timing_cache(known, ignore_mismatch=False)
    with activity.doing(activity.BUILDING) as describe:
        if hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _monitor_of(trt, describe)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"TensorRT cannot build a plan: {log.why()}")
    found = config.get_timing_cache() if known is not None else None
    return bytes(plan), bytes(found.serialize()) if found is not None else b"", "; ".join(notes)


def plan_file(
    trt: Any, log: Any, request: EngineRequest, target: Target, gpu: str, gpu_fingerprint: str
) -> tuple[Path, str]:
    """The plan in the cache, built if missing, and remarks about its build.

    A plan holds code for the GPU and is loaded without a check, so that it comes from our own cache alone.

    Raises:
        EngineError: another user may have written the plan, none was built ahead, or as ``build_plan``.
        RuntimeError: as ``build_plan``.
    """
    graph = deployment_graph(request.folder, request.resolution, "tensorrt", target.precision)
    device = f"{version_of(trt)} {gpu_fingerprint}"
    fingerprint = hashlib.sha256(f"{device} {target} {cache.checksum(graph)}".encode()).hexdigest()
    suffix = f"{target.precision}-tensorrt-{fingerprint[:8]}.plan"
    name = derived_name(request.folder, request.resolution, suffix)
    if request.prebuilt_only and cache.derived_file_there(name) is None:
        width, height = request.resolution
        command = canet_command(
            f"export --engine tensorrt --model {request.folder} --resolution {width}x{height} "
            f"--precision {target.precision} --max-batch {target.max_batch}"
        )
        raise EngineError(f"no plan has been built for {gpu}; run: {command}")

    timings_name = f"tensorrt-timings-{hashlib.sha256(device.encode()).hexdigest()[:8]}"

    def build(path: Path) -> None:
        plan, timings, notes = build_plan(trt, log, graph.read_bytes(), target, _cached(timings_name))
        path.write_bytes(plan)
        _store(timings_name, timings)
        _store(f"{name}.txt", notes.encode())

    plan = cache.derived_file(name, build)
    for path in (plan, plan.parent):
        found = path.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
            raise EngineError(
                f"{path} can be written by others, and a plan is code: chmod o-w it, or set CANET_ROS_CACHE to "
                "a folder of your own"
            )
    return plan, _cached(f"{name}.txt").decode()


def _cached(name: str) -> bytes:
    path = cache.derived_file_there(name)
    return path.read_bytes() if path else b""


def _store(name: str, content: bytes) -> None:
    def write(path: Path) -> None:
        path.write_bytes(content)

    if content:
        with contextlib.suppress(OSError):  # the next build does without
            cache.derived_file(name, write, anew=True)


def _monitor_of(trt: Any, describe: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Reports the progress of the outermost phase of a build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phase, self._steps = "", 1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._phase, self._steps = phase_name, max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._phase:
                describe(f"{activity.BUILDING}: {100 * (step + 1) // self._steps} %")
            return True

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


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


def _release(trt: Any) -> tuple[int, ...]:
    # TensorRT for RTX counts from 1, and is younger than 10.
    return (10,) if "rtx" in trt.__name__ else tuple(int(part) for part in trt.__version__.split(".")[:2])
