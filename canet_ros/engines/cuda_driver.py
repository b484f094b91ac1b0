# SPDX-License-Identifier: Apache-2.0
"""CUDA's driver API by cuda-bindings, which every driver brings, in the primary context that PyTorch uses too."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.errors import EngineError, in_one_line
from canet_ros.hints import pip_install


class Cuda:
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
        except Exception as error:  # also without any driver
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


@dataclass
class Buffers:
    """Streams and memory, released in reverse order."""

    cuda: Cuda
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
        """Pinned memory, so that copies overlap with the CPU."""
        address = int(self.cuda.call("cuMemHostAlloc", size, 0))
        self.at_end("cuMemFreeHost", address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def release(self) -> None:
        while self._ends:
            self.cuda.call(*self._ends.pop())
