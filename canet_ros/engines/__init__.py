# SPDX-License-Identifier: Apache-2.0
"""Engines run a deployment graph on a device; one file each, all behind ``Engine``."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import replace

from canet_ros.engines.engine import UNLIMITED, Engine, EngineRequest
from canet_ros.errors import EngineError, in_one_line
from canet_ros.formats import engine_conflict, parse_device
from canet_ros.hints import engine_module, install_engine
from canet_ros.machine import cpu_flags
from canet_ros.model import cache
from canet_ros.model.deployment import quantized_graph
from canet_ros.model.model_folder import ModelError, ModelSpec, load_spec
from canet_ros.names import ENGINES, PRECISIONS

__all__ = ["Engine", "EngineRequest", "cpu_has_bf16", "cpu_multiplies_int8", "create_engine"]


def create_engine(request: EngineRequest) -> Engine:
    """The engine that was asked for, or for ``auto`` the fastest that starts on this machine.

    ``auto`` falls back from int8 where the model is not calibrated. ``fallback_reasons`` of the result names what was
    tried first and why it did not start.

    Raises:
        EngineError: no requested engine starts; the message gives the reason in one line.
        ModelError: the model is broken.
    """
    try:
        parse_device(request.device)
    except ValueError as error:
        raise EngineError(f"device: {error}") from error
    for what, value, known in (
        ("engine", request.engine, ENGINES),
        ("precision", request.precision, PRECISIONS),
    ):
        if value not in ("auto", *known):
            raise EngineError(f"unknown {what} {value!r}: choose auto or one of {', '.join(known)}")
    if conflict := engine_conflict(request.engine, request.device, request.precision):
        raise EngineError(conflict)
    spec = load_spec(request.folder)
    if spec.onnx is not None and request.engine == "torch":
        raise EngineError(
            f"engine torch: model {spec.name} is an ONNX network; use openvino, onnxruntime or tensorrt"
        )
    if request.resolution != spec.resolution:
        spec.require_free_size()
    if spec.onnx is not None and not spec.onnx.free_batch:
        request = replace(request, max_batch=1)
    refusals: list[str] = []
    if request.precision == "int8":
        try:
            with cache.substituted():
                quantized_graph(request.folder, request.resolution)
        except ModelError:
            raise
        except Exception as error:  # no scales, no package to apply them with
            if request.engine != "auto":
                raise error if isinstance(error, EngineError) else EngineError(in_one_line(error)) from error
            refusals.append(f"not int8: {error}")
            request = replace(request, precision="auto")
    candidates = _fastest_first(request) if request.engine == "auto" else [request]
    for candidate in candidates:
        if spec.onnx is not None and candidate.engine == "torch":
            continue
        with cache.substituted() as remarks:
            try:
                engine = _build(candidate, spec)
            except EngineError as error:
                if request.engine != "auto":
                    raise
                refusals.append(f"not {candidate.engine} on {candidate.device}: {error}")
                continue
        engine.most_at_once = getattr(engine, "most_at_once", UNLIMITED)
        engine.streams = getattr(engine, "streams", 1)
        engine.fallback_reasons = (*refusals, *remarks, *getattr(engine, "fallback_reasons", ()))
        return engine
    raise EngineError(
        f"no engine on this machine supports device {request.device}, precision {request.precision}: "
        + "; ".join(refusals)
    )


def _fastest_first(request: EngineRequest) -> list[EngineRequest]:
    on_gpu = ["tensorrt", "torch", "onnxruntime"]
    # In fp32, ONNX Runtime is ahead of PyTorch.
    on_cpu = ["openvino", *(("torch", "onnxruntime") if cpu_has_bf16() else ("onnxruntime", "torch"))]
    device = request.device
    if device == "auto":
        usable = on_gpu if _has_cuda_gpu() else []
        choices = [*(("cuda", name) for name in usable), *(("cpu", name) for name in on_cpu)]
    else:
        names = on_cpu if device == "cpu" else on_gpu[:1] if device.startswith("dla") else on_gpu
        choices = [(device, name) for name in names]
    return [replace(request, engine=name, device=device) for device, name in choices]


def _build(request: EngineRequest, spec: ModelSpec) -> Engine:
    name = request.engine
    if conflict := engine_conflict(name, request.device, request.precision):
        raise EngineError(conflict)
    try:
        if importlib.util.find_spec(engine_module(name)) is None:
            raise EngineError(f"the package {name} is missing: {install_engine(name)}")
        module = importlib.import_module(f"canet_ros.engines.{name}_engine")
        engine: Engine = getattr(module, ENGINES[name])(request)
    except (EngineError, ModelError):
        raise
    except ModuleNotFoundError as error:
        raise EngineError(f"engine {name}: {error}") from error  # the message names the package to install
    except (Exception, SystemExit) as error:  # a package, a driver or a disk can throw anything
        size = "" if spec.onnx is None else f" with {spec.name} at {'x'.join(map(str, request.resolution))}"
        raise EngineError(f"engine {name} does not start{size}: {in_one_line(error)}") from error
    if spec.onnx is not None and spec.onnx.gives == "ids":
        engine.reason += "; the network returns class ids only, so confidence is 255 everywhere"
    return engine


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX-512 BF16, AMX, or Arm's)."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpu_flags())


def cpu_multiplies_int8() -> bool:
    """Whether this CPU sums products of 8-bit integers in hardware (x86's VNNI or AMX), faster than bf16."""
    return not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(cpu_flags())


def _has_cuda_gpu() -> bool:
    """Asked of the driver: importing torch to learn it would cost a second and 200 MB."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
