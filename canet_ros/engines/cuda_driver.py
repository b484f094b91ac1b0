# SPDX-License-Identifier: Apache-2.0
"""CUDA's driver API by cuda-bindings, which every driver brings, in the primary context that PyTorch uses too."""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Iterator
from typing import Any

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
