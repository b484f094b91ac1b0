# SPDX-License-Identifier: Apache-2.0
"""TensorRT on NVIDIA GPUs and on the DLA of a Jetson, through its own Python API."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.engines.engine import UNLIMITED, EngineRequest, is_out_of_memory, warm_up
from canet_ros.engines.tensorrt_plan import Target, log_of, plan_file, tensorrt_module, version_of
from canet_ros.errors import EngineError, in_one_line
from canet_ros.hints import pip_install
from canet_ros.model import cache
from canet_ros.model.model_folder import Resolution
from canet_ros.model.onnx_interface import INPUT, OUTPUTS


class TensorRtEngine:
    """A plan in an execution context; images of a call are copied, run and copied back on one stream.

    A CUDA graph of the three is recorded for every number of images: one launch instead of one for each of some sixty
    kernels. The plan is built at the first start, which takes minutes on a Jetson, and kept in the cache;
    ``canet export --engine tensorrt`` builds it before a drive. Device memory comes from cuda-bindings and not from
    torch, so that a robot that runs plans needs none of PyTorch's gigabytes.
    """

    name = "tensorrt"

    def __init__(self, request: EngineRequest) -> None:
        self._trt = tensorrt_module()
        kind, _, number = request.device.replace("auto", "cuda").partition(":")
        index = int(number or 0)
        self.precision = "fp16" if request.precision == "auto" else request.precision
        if kind == "dla" and self.precision == "fp32":
            raise EngineError("precision fp32: a DLA computes in fp16 and int8")
        self.fallback_reasons: tuple[str, ...] = ()
        self.most_at_once = UNLIMITED
        cuda = Cuda(0 if kind == "dla" else index)
        self.device = f"dla:{index}" if kind == "dla" else f"cuda:{index}"
        self.reason = f"{version_of(self._trt)} on {cuda.device_name}"
        dla = index if kind == "dla" else None
        batch = 1 if kind == "dla" else request.max_batch
        with cuda.current():
            while not self._started(request, Target(batch, self.precision, dla, (cuda.capability,)), cuda):
                batch //= 2
        most, remarks = warm_up(self.run, request.resolution, batch)
        if most < UNLIMITED or batch < request.max_batch:
            self.most_at_once = min(most, batch)
        self.fallback_reasons += (*remarks, *self._execution.remarks)

    def _started(self, request: EngineRequest, target: Target, cuda: Cuda) -> bool:
        """Whether the engine started; False if this batch size exceeds the GPU's memory, and a smaller one may fit."""
        log = log_of(self._trt)
        try:
            for _ in range(2):
                plan, notes = plan_file(self._trt, log, request, target, cuda.device_name, cuda.fingerprint)
                engine = self._trt.Runtime(log).deserialize_cuda_engine(plan.read_bytes())
                if engine is not None:
                    break
                # Of another driver, or of a GPU of the same name that differs.
                cache.forget_derived_file(plan)
            else:
                raise RuntimeError(f"TensorRT cannot read the plan that it built: {log.why()}")
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
        self.reason += f"; {notes}" if notes else ""
        weakref.finalize(self, self._execution.release)
        return True

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        masks = np.empty(images.shape[:3], np.uint8)
        confidences = np.empty_like(masks)
        step = self._execution.max_batch
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            self._execution.run(images[part], masks[part], confidences[part])
        return masks, confidences


class _Execution:
    """A plan with the memory that it reads and writes, which lives as long as it does.

    Buffers are for ``max_batch`` images: (B, h, w, 3) in and (B, h, w) twice out, uint8, pinned on the host. Every
    number of images has an execution context of its own, since a recorded CUDA graph is of one shape.
    """

    def __init__(self, engine: Any, log: Any, cuda: Cuda, target: Target, resolution: Resolution) -> None:
        self.max_batch = target.max_batch
        self.remarks: tuple[str, ...] = ()
        self._cuda, self._engine, self._log = cuda, engine, log
        self._records = target.dla is None
        self._width, self._height = resolution
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}
        pixels = self.max_batch * self._width * self._height
        sizes = {INPUT: 3 * pixels, **dict.fromkeys(OUTPUTS, pixels)}
        self._resources = contextlib.ExitStack()
        try:
            non_blocking = cuda.driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = self._acquire("cuStreamCreate", "cuStreamDestroy", non_blocking)
            self._on_device = {
                name: int(self._acquire("cuMemAlloc", "cuMemFree", size)) for name, size in sizes.items()
            }
            self._on_host = {name: self._pinned(size) for name, size in sizes.items()}
        except BaseException:
            self.release()
            raise

    def _acquire(self, function: str, release: str, *arguments: Any) -> Any:
        resource = self._cuda.call(function, *arguments)
        self._resources.callback(self._cuda.call, release, resource)
        return resource

    def _pinned(self, size: int) -> NDArray[np.uint8]:
        """Pinned host memory, so that copies overlap with the CPU."""
        address = int(self._acquire("cuMemHostAlloc", "cuMemFreeHost", size, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

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
        call, stream, pixels = self._cuda.call, self._stream, batch * self._width * self._height
        device, host = self._on_device, {name: numbers.ctypes.data for name, numbers in self._on_host.items()}
        call("cuMemcpyHtoDAsync", device[INPUT], host[INPUT], 3 * pixels, stream)
        self._require(context.execute_async_v3(int(stream)), "execution")
        for name in OUTPUTS:
            call("cuMemcpyDtoHAsync", host[name], device[name], pixels, stream)

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
            self._graphs[batch] = self._acquire("cuGraphInstantiate", "cuGraphExecDestroy", recording, 0)
            self._cuda.call("cuGraphDestroy", recording)
        except RuntimeError as error:
            self._records = False
            self.remarks += (f"without a CUDA graph: {in_one_line(error)}",)

    def _require(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise RuntimeError(f"TensorRT rejects the {what}: {self._log.why()}")

    def release(self) -> None:
        """Give everything back, contexts before their engine; may be called again."""
        with self._cuda.current():
            self._contexts.clear()
            self._engine = None
            self._resources.close()


class Cuda:
    """A GPU's primary context, which PyTorch uses too, through CUDA's driver API.

    Attributes:
        driver: cuda.bindings.driver.
        capability: compute capability, as (8, 7).
        fingerprint: text that changes with the GPU and its driver.
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
        except Exception as error:  # also without any driver
            raise EngineError(f"the CUDA driver does not start: {in_one_line(error)}") from error
        count = self.call("cuDeviceGetCount")
        if index >= count:
            raise EngineError(f"device 'cuda:{index}': this machine has {count} CUDA GPUs")
        self._device = self.call("cuDeviceGet", index)
        self.device_name = self.call("cuDeviceGetName", 100, self._device).split(b"\0")[0].decode()
        which = self.driver.CUdevice_attribute
        self.capability = (
            self._attribute(which.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            self._attribute(which.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        )
        self.fingerprint = f"{self.device_name} {self.capability} {self.call('cuDriverGetVersion')}"
        self._context = self.call("cuDevicePrimaryCtxRetain", self._device)
        weakref.finalize(self, self.driver.cuDevicePrimaryCtxRelease, self._device)

    def _attribute(self, which: Any) -> int:
        return int(self.call("cuDeviceGetAttribute", which, self._device))

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
