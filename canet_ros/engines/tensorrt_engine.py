# SPDX-License-Identifier: Apache-2.0
"""TensorRT on NVIDIA GPUs and on the DLA of a Jetson, through its own Python API.

The module is ``tensorrt`` (8.6 of JetPack 6.0, 10 and 11), or TensorRT for RTX (``tensorrt_rtx_bindings``) where only
that is installed. Device memory comes from cuda-bindings and not from torch, so that a robot that runs plans needs
none of PyTorch's gigabytes. It calls CUDA's driver API, which every driver brings, in the device's primary context,
which PyTorch uses too.

What of this ran, and what was only compiled: docs/jetson.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import stat
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros import activity
from canet_ros.engines.engine import UNLIMITED, EngineRequest, is_out_of_memory, warm_up
from canet_ros.errors import EngineError, in_one_line
from canet_ros.hints import canet_command, engine_module, pip_install
from canet_ros.model import cache
from canet_ros.model.deployment import deployment_graph
from canet_ros.model.export import INPUT, OUTPUTS, derived_name
from canet_ros.model.model_folder import Resolution

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


class TensorRtEngine:
    """A plan in an execution context; images of a call are copied, run and copied back on one stream.

    A CUDA graph of the three is recorded for every number of images: one launch instead of one for each of some sixty
    kernels. The plan is built at the first start, which takes minutes on
    a Jetson, and kept in the cache; ``canet export --engine tensorrt`` does so ahead of a drive.
    """

    name = "tensorrt"

    def __init__(self, request: EngineRequest) -> None:
        self._trt = tensorrt_module()
        kind, index = _device(request.device)
        self.precision = _precision(request.precision, kind)
        self.fallback_reasons: tuple[str, ...] = ()
        self.most_at_once = UNLIMITED
        cuda = _Cuda(0 if kind == "dla" else index)
        self.device = f"dla:{index}" if kind == "dla" else f"cuda:{index}"
        self.reason = f"{_version(self._trt)} on {cuda.device_name}"
        dla = index if kind == "dla" else None
        batch = 1 if kind == "dla" else request.max_batch
        with cuda.current():
            while not self._started(request, Target(batch, self.precision, dla, (cuda.capability,)), cuda):
                batch //= 2
        most, remarks = warm_up(self.run, request.resolution, batch)
        if most < UNLIMITED or batch < request.max_batch:
            self.most_at_once = min(most, batch)
        self.fallback_reasons += (*remarks, *self._execution.remarks)

    def _started(self, request: EngineRequest, target: Target, cuda: _Cuda) -> bool:
        """Whether plan and memory are there; not where they do not fit into the GPU's memory, but fewer images may."""
        log = log_of(self._trt)
        try:
            plan, notes = _plan(self._trt, log, request, target, cuda)
            engine = self._trt.Runtime(log).deserialize_cuda_engine(plan.read_bytes())
            if engine is None:  # of another driver, or of a GPU of the same name that differs
                cache.forget_derived_file(plan)
                plan, notes = _plan(self._trt, log, request, target, cuda)
                engine = self._trt.Runtime(log).deserialize_cuda_engine(plan.read_bytes())
            if engine is None:
                raise RuntimeError(f"TensorRT does not read the plan that it made: {log.why()}")
            self._execution = _Execution(engine, log, cuda, target, request.resolution)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            batch = target.max_batch
            if batch == 1:
                width, height = request.resolution
                raise EngineError(f"out of memory at {width}x{height}: {in_one_line(error)}") from error
            self.fallback_reasons += (f"not {batch} images at once, but {batch // 2}: {in_one_line(error)}",)
            return False
        weakref.finalize(self, self._execution.release)
        self.reason += f"; {notes}" if notes else ""
        return True

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        masks = np.empty(images.shape[:3], np.uint8)
        confidences = np.empty_like(masks)
        step = self._execution.max_batch
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            self._execution.run(images[part], masks[part], confidences[part])
        return masks, confidences


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
    notes: list[str] | None = None,
    detailed: bool = False,
) -> tuple[bytes, bytes]:
    """Compile a graph in TensorRT's dialect.

    Args:
        trt, log: the module and a logger of ``log_of``.
        graph: the ONNX file; its input is (B, h, w, 3) uint8 with a free or a fixed B.
        timings: TensorRT's timing cache of an earlier build on this GPU.
        notes: is given what is worth telling of the build.
        detailed: whether the plan keeps the names and types of its layers, which the log then lists.

    Returns:
        The serialised plan, and the timing cache; empty where there is none.

    Raises:
        EngineError: the parser refuses the graph; the message has its reason.
        RuntimeError: the builder fails; the message has TensorRT's.
    """
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
            f"TensorRT's parser refuses the graph: {error.node_name()} ({error.node_operator()}): {reason}"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    # Its numbers are as coarse as those of fp16, and what the graph keeps in fp32 is meant.
    config.clear_flag(trt.BuilderFlag.TF32)
    if not typed:
        _allow_types(trt, config, target)
    if target.dla is not None:
        _use_dla(trt, config, network, target.dla, [] if notes is None else notes)
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
    known = None if "rtx" in trt.__name__ else config.create_timing_cache(timings)  # where it does nothing
    if known is not None:
        config.set_timing_cache(known, ignore_mismatch=False)
    with activity.doing(activity.BUILDING) as now_doing:
        if hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _monitor_of(trt, now_doing)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"TensorRT builds no plan: {log.why()}")
    found = config.get_timing_cache() if known is not None else None
    return bytes(plan), bytes(found.serialize()) if found is not None else b""


def _allow_types(trt: Any, config: Any, target: Target) -> None:
    wanted = {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}[target.precision]
    for name in wanted:
        if not hasattr(trt.BuilderFlag, name):
            raise EngineError(
                f"this TensorRT ({trt.__version__}) builds nothing in {target.precision} for a DLA"
            )
        config.set_flag(getattr(trt.BuilderFlag, name))


def _use_dla(trt: Any, config: Any, network: Any, core: int, notes: list[str]) -> None:
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    able = sum(config.can_run_on_DLA(layer) for layer in layers)
    notes.append(f"{able} of {len(layers)} layers on DLA {core}, the others on the GPU")
    pixels = network.get_input(0)
    pixels.shape = (1, *tuple(pixels.shape)[1:])  # it takes no free dimension


def _plan(trt: Any, log: Any, request: EngineRequest, target: Target, cuda: _Cuda) -> tuple[Path, str]:
    """The plan in the cache, built if it is not there, and what is worth telling of it.

    A plan holds code for the GPU and is loaded without a check, so that it comes from our own cache alone.
    """
    graph = deployment_graph(request.folder, request.resolution, "tensorrt", target.precision)
    device = f"{_version(trt)} {cuda.device_name} {cuda.capability} {cuda.driver_version}"
    fingerprint = f"{device} {target} {cache.checksum(graph)}"
    name = derived_name(
        request.folder,
        request.resolution,
        f"{target.precision}-tensorrt-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}.plan",
    )
    if request.prebuilt_only and cache.derived_file_there(name) is None:
        width, height = request.resolution
        command = canet_command(
            f"export --engine tensorrt --model {request.folder} --resolution {width}x{height} "
            f"--precision {target.precision} --max-batch {target.max_batch}"
        )
        raise EngineError(f"no plan was built ahead for {cuda.device_name}; run: {command}")
    timings_name = f"tensorrt-timings-{hashlib.sha256(device.encode()).hexdigest()[:8]}"

    def build(path: Path) -> None:
        notes: list[str] = []
        plan, timings = build_plan(trt, log, graph.read_bytes(), target, _kept(timings_name), notes)
        path.write_bytes(plan)
        _keep(timings_name, timings)
        _keep(f"{name}.txt", "; ".join(notes).encode())

    plan = cache.derived_file(name, build)
    require_own(plan)
    return plan, _kept(f"{name}.txt").decode()


def _kept(name: str) -> bytes:
    path = cache.derived_file_there(name)
    return path.read_bytes() if path else b""


def _keep(name: str, content: bytes) -> None:
    def write(path: Path) -> None:
        path.write_bytes(content)

    if content:
        with contextlib.suppress(OSError):  # the next build does without
            cache.replace_derived_file(name, write)


def require_own(plan: Path) -> None:
    """Refuse a plan that somebody else may have written.

    Raises:
        EngineError: its file or folder belongs to another user than this one or root, or everyone can write it.
    """
    for path in (plan, plan.parent):
        found = path.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
            raise EngineError(
                f"{path} can be written by others, and a plan is code: chmod o-w it, or set CANET_ROS_CACHE to "
                "a folder of your own"
            )


def _monitor_of(trt: Any, now_doing: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Writes how far the outermost phase of a build is."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phase, self._steps = "", 1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._phase, self._steps = phase_name, max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._phase:
                now_doing(f"{activity.BUILDING}: {100 * (step + 1) // self._steps} %")
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


class _Execution:
    """A plan with the memory that it reads and writes, which lives as long as it does.

    Buffers are for ``max_batch`` images: (B, h, w, 3) in and (B, h, w) twice out, uint8, pinned on the host. Every
    number of images has an execution context of its own, since a recorded CUDA graph is of one shape.
    """

    def __init__(self, engine: Any, log: Any, cuda: _Cuda, target: Target, resolution: Resolution) -> None:
        self.max_batch = target.max_batch
        self.remarks: tuple[str, ...] = ()
        self._cuda, self._engine, self._log = cuda, engine, log
        self._records = target.dla is None
        self._width, self._height = resolution
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}
        pixels = self.max_batch * self._width * self._height
        sizes = {INPUT: 3 * pixels, **dict.fromkeys(OUTPUTS, pixels)}
        self._buffers = _Buffers(cuda)
        try:
            self._stream = self._buffers.stream()
            self._on_device = {name: self._buffers.on_device(size) for name, size in sizes.items()}
            self._on_host = {name: self._buffers.on_host(size) for name, size in sizes.items()}
        except BaseException:
            self.release()
            raise

    def run(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], confidences: NDArray[np.uint8]
    ) -> None:
        """Class ids and confidence of up to ``max_batch`` images, into the arrays given."""
        batch = len(images)
        with self._cuda.current():
            self._on_host[INPUT][: images.size] = images.reshape(-1)
            if batch in self._graphs:
                self._cuda.call("cuGraphLaunch", self._graphs[batch], self._stream)
            else:
                self._enqueue(batch)
            self._cuda.call("cuStreamSynchronize", self._stream)
            for name, results in zip(OUTPUTS, (masks, confidences)):
                results.reshape(-1)[:] = self._on_host[name][: results.size]
            # TensorRT prepares for a shape at its first call, which must not be recorded.
            if self._records and batch not in self._graphs:
                self._record(batch)

    def _enqueue(self, batch: int) -> None:
        context = self._contexts.get(batch) or self._new_context(batch)
        pixels = batch * self._width * self._height
        self._cuda.call(
            "cuMemcpyHtoDAsync",
            self._on_device[INPUT],
            self._on_host[INPUT].ctypes.data,
            3 * pixels,
            self._stream,
        )
        self._require(context.execute_async_v3(int(self._stream)), "execution")
        for name in OUTPUTS:
            self._cuda.call(
                "cuMemcpyDtoHAsync",
                self._on_host[name].ctypes.data,
                self._on_device[name],
                pixels,
                self._stream,
            )

    def _new_context(self, batch: int) -> Any:
        context = self._engine.create_execution_context()
        self._require(context is not None, "execution context")
        shape = (batch, self._height, self._width, 3)
        self._require(context.set_input_shape(INPUT, shape), f"shape {shape}")
        for name, address in self._on_device.items():
            self._require(context.set_tensor_address(name, address), f"address of {name}")
        self._contexts[batch] = context
        return context

    def _record(self, batch: int) -> None:
        """Record copy in, execution and copy out as a CUDA graph; where that fails, it is not tried again."""
        mode = self._cuda.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            # Other threads of the process may use CUDA meanwhile.
            self._cuda.call("cuStreamBeginCapture", self._stream, mode)
            try:
                self._enqueue(batch)
            finally:
                recording = self._cuda.call("cuStreamEndCapture", self._stream)
            self._graphs[batch] = self._cuda.call("cuGraphInstantiate", recording, 0)
            self._buffers.at_end("cuGraphExecDestroy", self._graphs[batch])
            self._cuda.call("cuGraphDestroy", recording)
        except RuntimeError as error:
            self._records = False
            self.remarks += (f"without a CUDA graph: {in_one_line(error)}",)

    def _require(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise RuntimeError(f"TensorRT refuses the {what}: {self._log.why()}")

    def release(self) -> None:
        """Give everything back, contexts before their engine; may be called again."""
        with self._cuda.current():
            self._contexts.clear()
            self._engine = None
            self._buffers.release()


@dataclass
class _Buffers:
    """Streams and memory, given back in the opposite order."""

    cuda: _Cuda
    _ends: list[tuple[str, Any]] = field(default_factory=list)

    def at_end(self, function: str, what: Any) -> None:
        self._ends.append((function, what))

    def stream(self) -> Any:
        stream = self.cuda.call("cuStreamCreate", self.cuda.driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.at_end("cuStreamDestroy", stream)
        return stream

    def on_device(self, size: int) -> int:
        address = self.cuda.call("cuMemAlloc", size)
        self.at_end("cuMemFree", address)
        return int(address)

    def on_host(self, size: int) -> NDArray[np.uint8]:
        """Pinned, so that copies run beside the CPU."""
        address = int(self.cuda.call("cuMemHostAlloc", size, 0))
        self.at_end("cuMemFreeHost", address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def release(self) -> None:
        while self._ends:
            self.cuda.call(*self._ends.pop())


class _Cuda:
    """A GPU's primary context, which PyTorch uses too, through CUDA's driver API.

    Attributes:
        driver: cuda.bindings.driver.
        capability: compute capability, as (8, 7).
    """

    def __init__(self, index: int) -> None:
        try:
            self.driver: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise EngineError(
                f"the package cuda-bindings is missing: {pip_install('cuda-bindings')}"
            ) from error
        try:
            self.call("cuInit", 0)
        except Exception as error:  # also where there is no driver at all
            raise EngineError(f"CUDA's driver does not start: {in_one_line(error)}") from error
        count = self.call("cuDeviceGetCount")
        if index >= count:
            raise EngineError(f"device 'cuda:{index}': this machine has {count} CUDA GPUs")
        self._device = self.call("cuDeviceGet", index)
        self.device_name = self.call("cuDeviceGetName", 100, self._device).split(b"\0")[0].decode()
        attributes = self.driver.CUdevice_attribute
        major, minor = (
            self.call("cuDeviceGetAttribute", attribute, self._device)
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.capability = (int(major), int(minor))
        self.driver_version = self.call("cuDriverGetVersion")
        self._context = self.call("cuDevicePrimaryCtxRetain", self._device)
        weakref.finalize(self, self.driver.cuDevicePrimaryCtxRelease, self._device)

    def call(self, function: str, *arguments: Any) -> Any:
        """What a function of the driver API returns.

        Raises:
            RuntimeError: it fails; the message has CUDA's name of the error.
        """
        error, *values = getattr(self.driver, function)(*arguments)
        if int(error) != 0:
            raise RuntimeError(f"{function}: {getattr(error, 'name', error)}")
        return values[0] if values else None

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context that of the calling thread meanwhile."""
        self.call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent")


def _device(wanted: str) -> tuple[str, int]:
    """``cuda`` or ``dla``, and its number."""
    kind, _, number = ("cuda" if wanted == "auto" else wanted).partition(":")
    if kind not in ("cuda", "dla") or not (number or "0").isdecimal():
        raise EngineError(f"device {wanted!r}: TensorRT runs on cuda, cuda:N or, on a Jetson Orin, dla:N")
    return kind, int(number or 0)


def _precision(wanted: str, kind: str) -> str:
    if wanted == "auto":
        return "fp16"
    if wanted == "bf16":
        raise EngineError("precision bf16: the tensorrt engine has none; use fp32, fp16 or int8")
    if wanted == "fp32" and kind == "dla":
        raise EngineError("precision fp32: a DLA computes in fp16 and int8")
    return wanted


def _version(trt: Any) -> str:
    return f"TensorRT {'for RTX ' if 'rtx' in trt.__name__ else ''}{trt.__version__}"


def _release(trt: Any) -> tuple[int, ...]:
    # TensorRT for RTX counts from 1, and is younger than 10.
    return (10,) if "rtx" in trt.__name__ else tuple(int(part) for part in trt.__version__.split(".")[:2])
