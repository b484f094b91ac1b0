# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, N815
"""The tensorrt engine without a GPU: TensorRT's own builder, and a GPU that is faked at CUDA's driver API.

The fake refuses calls out of order, addresses that were not given out, sizes that do not fit and shapes outside of the
profile, and computes with ONNX Runtime what the plan's graph says. Not asserted: anything of a real device.
"""

from __future__ import annotations

import ctypes
import enum
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from canet_ros.engines import EngineRequest, create_engine
from canet_ros.errors import EngineError
from canet_ros.model.deployment import deployment_graph

WHEELS = "TensorRT's compiler is not here: pip install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings"
tensorrt_rtx_bindings = pytest.importorskip("tensorrt_rtx_bindings", reason=WHEELS)
onnxruntime = pytest.importorskip("onnxruntime")

RESOLUTION = (160, 120)


class Status(enum.IntEnum):
    """CUresult, as far as the fake returns it."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2


OK, INVALID, OUT_OF_MEMORY = Status


class Gpu(ModuleType):
    """cuda.bindings.driver with one GPU, whose memory is the host's."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
    )

    def __init__(self) -> None:
        super().__init__("cuda.bindings.driver")
        self.room, self.capturable = 2**40, True
        self.contexts: list[str] = []
        self.retained = 0
        self.memory: dict[str, dict[int, Any]] = {"device": {}, "host": {}}
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Any]] = {}
        self.recording: list[Any] | None = None
        self.queue: list[Any] = []
        self.launched = 0
        self.is_initialised = False

    def _allocate(self, kind: str, size: int, flags: int = 0) -> tuple[Any, ...]:
        assert self.contexts, "no current context"
        taken = sum(len(block) for block in self.memory["device"].values())
        if kind == "device" and taken + size > self.room:
            return (OUT_OF_MEMORY, None)
        block = (ctypes.c_uint8 * size)()
        self.memory[kind][ctypes.addressof(block)] = block
        return (OK, ctypes.addressof(block))

    def _free(self, kind: str, address: int) -> tuple[Any]:
        assert self.contexts, "no current context"
        return (INVALID if self.memory[kind].pop(int(address), None) is None else OK,)

    def fits(self, kind: str, address: int, size: int) -> bool:
        return size <= len(self.memory[kind].get(int(address), ()))

    def enqueue(self, stream: int, work: Any) -> Status:
        if int(stream) not in self.streams or not self.contexts:
            return INVALID
        (self.queue if self.recording is None else self.recording).append(work)
        return OK

    def _copy(self, to_kind: str, kind: str, to: int, source: int, size: int, stream: int) -> tuple[Status]:
        if not (self.fits(to_kind, to, size) and self.fits(kind, source, size)):
            return (INVALID,)
        return (self.enqueue(stream, lambda: ctypes.memmove(to, source, size)),)

    def cuInit(self, flags: int) -> tuple[Any]:
        self.is_initialised = True
        return (OK,)

    def cuDeviceGetCount(self) -> tuple[Any, int]:
        return (OK if self.is_initialised else INVALID), 1

    def cuDeviceGet(self, index: int) -> tuple[Any, int]:
        return (OK if index == 0 else INVALID), index

    def cuDeviceGetName(self, length: int, device: int) -> tuple[Any, bytes]:
        return OK, b"Fake RTX" + bytes(length - 8)

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> tuple[Any, int]:
        return OK, {"major": 8, "minor": 6}[attribute]

    def cuDriverGetVersion(self) -> tuple[Any, int]:
        return OK, 12060

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, str]:
        self.retained += 1
        return OK, "primary"

    def cuDevicePrimaryCtxRelease(self, device: int) -> tuple[Any]:
        self.retained -= 1
        return (OK,)

    def cuCtxPushCurrent(self, context: str) -> tuple[Any]:
        self.contexts.append(context)
        return (OK if self.retained > 0 else INVALID,)

    def cuCtxPopCurrent(self) -> tuple[Any, str]:
        return OK, self.contexts.pop()

    def cuStreamCreate(self, flags: int) -> tuple[Any, int]:
        assert self.contexts, "no current context"
        self.streams.add(len(self.streams) + 100)
        return OK, max(self.streams)

    def cuStreamDestroy(self, stream: int) -> tuple[Any]:
        self.streams.remove(stream)
        return (OK,)

    cuMemAlloc = partialmethod(_allocate, "device")
    cuMemHostAlloc = partialmethod(_allocate, "host")
    cuMemFree = partialmethod(_free, "device")
    cuMemFreeHost = partialmethod(_free, "host")
    cuMemcpyHtoDAsync = partialmethod(_copy, "device", "host")
    cuMemcpyDtoHAsync = partialmethod(_copy, "host", "device")

    def cuStreamSynchronize(self, stream: int) -> tuple[Any]:
        assert self.recording is None, "a synchronisation while a graph is recorded"
        while self.queue:
            self.queue.pop(0)()
        return (OK if stream in self.streams else INVALID,)

    def cuStreamBeginCapture(self, stream: int, mode: str) -> tuple[Any]:
        if not self.capturable or self.queue:
            self.recording = None
            return (INVALID,)
        self.recording = []
        return (OK,)

    def cuStreamEndCapture(self, stream: int) -> tuple[Any, Any]:
        recorded, self.recording = self.recording, None
        return (INVALID if recorded is None else OK), recorded

    def cuGraphInstantiate(self, graph: list[Any], flags: int) -> tuple[Any, int]:
        self.graphs[len(self.graphs) + 1] = list(graph)
        return OK, len(self.graphs)

    def cuGraphDestroy(self, graph: list[Any]) -> tuple[Any]:
        return (OK,)

    def cuGraphExecDestroy(self, graph: int) -> tuple[Any]:
        return (INVALID if self.graphs.pop(graph, None) is None else OK,)

    def cuGraphLaunch(self, graph: int, stream: int) -> tuple[Any]:
        self.launched += 1
        return (max((self.enqueue(stream, work) for work in self.graphs[graph]), default=INVALID),)


class Context:
    """Of an engine whose plan came from ``graph``; takes 1 to ``max_batch`` images."""

    def __init__(self, gpu: Gpu, graph: Path, max_batch: int) -> None:
        self._gpu, self._max_batch = gpu, max_batch
        self._session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._has_run = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        width, height = RESOLUTION
        self._shape = shape
        return name == "images" and 1 <= shape[0] <= self._max_batch and shape[1:] == (height, width, 3)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in ("images", "mask", "confidence")
        self._addresses[name] = address
        return self._gpu.fits("device", address, 1)

    def execute_async_v3(self, stream: int) -> bool:
        if (
            len(self._addresses) < 3
            or not self._shape
            or (self._gpu.recording is not None and not self._has_run)
        ):
            return False
        pixels = int(np.prod(self._shape[:3]))
        sizes = {"images": 3 * pixels, "mask": pixels, "confidence": pixels}
        if not all(self._gpu.fits("device", self._addresses[name], size) for name, size in sizes.items()):
            return False
        self._has_run = True

        def work() -> None:
            memory = {
                name: np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._addresses[name]))
                for name, size in sizes.items()
            }
            results = self._session.run(
                ["mask", "confidence"], {"images": memory["images"].reshape(self._shape)}
            )
            for name, planes in zip(("mask", "confidence"), results):
                memory[name][:] = planes.reshape(-1)

        return self._gpu.enqueue(stream, work) == OK


@pytest.fixture(scope="module")
def graphs(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the graphs and no plan."""
    folder = tmp_path_factory.mktemp("graphs") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANET_ROS_CACHE", str(folder))
        for precision in ("fp32", "fp16"):
            deployment_graph(random_model, RESOLUTION, "tensorrt", precision)
    return folder


@pytest.fixture
def gpu(graphs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gpu]:
    """TensorRT's builder as it is, with a runtime that runs on the fake."""
    shutil.copytree(graphs, tmp_path / "cache")
    monkeypatch.setenv("CANET_ROS_CACHE", str(tmp_path / "cache"))
    fake = Gpu()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)

    class Runtime:
        def __init__(self, log: object) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            (graph,) = (tmp_path / "cache").rglob("*-fp16-tensorrt.onnx")
            if fake.room == 0:
                raise RuntimeError("CUDA out of memory")
            return SimpleNamespace(create_execution_context=lambda: Context(fake, graph, 4)) if plan else None

    module = ModuleType("tensorrt_rtx_bindings")
    vars(module).update(vars(tensorrt_rtx_bindings))
    module.Runtime = Runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", module)
    yield fake
    assert fake.contexts == []


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, RESOLUTION[1], RESOLUTION[0], 3), np.uint8)


def engine_for(model: Path, **options: Any) -> Any:
    return create_engine(EngineRequest(model, RESOLUTION, "tensorrt", **{"device": "cuda", **options}))


def test_masks_are_those_of_the_graph_and_everything_is_given_back(random_model: Path, gpu: Gpu) -> None:
    engine = engine_for(random_model, max_batch=2)
    assert (engine.name, engine.device, engine.precision, engine.fallback_reasons) == (
        "tensorrt",
        "cuda:0",
        "fp16",
        (),
    )
    assert "Fake RTX" in engine.reason
    exact = create_engine(EngineRequest(random_model, RESOLUTION, "onnxruntime", "cpu", "fp32"))
    launched = gpu.launched
    for count in (1, 2, 5, 1):
        mask, confidence = engine.run(images(count))
        expected = exact.run(images(count))
        assert (mask == expected[0]).mean() > 0.98  # random weights are unsure of nearly every pixel
        assert np.abs(confidence.astype(int) - expected[1]).mean() < 2
    assert gpu.launched - launched == 1 + 1 + 3 + 1, "a CUDA graph for every number of images"
    assert gpu.memory["device"]
    del engine
    gc.collect()
    assert gpu.memory == {"device": {}, "host": {}}
    assert (gpu.streams, gpu.graphs, gpu.retained) == (set(), {}, 0)


def test_the_plan_is_built_once_and_damage_builds_it_anew(
    random_model: Path, gpu: Gpu, tmp_path: Path
) -> None:
    engine_for(random_model)
    (plan,) = (tmp_path / "cache").rglob("*.plan")
    made = plan.stat().st_mtime_ns
    engine_for(random_model)
    assert plan.stat().st_mtime_ns == made
    plan.write_bytes(b"another program")
    engine_for(random_model)
    assert plan.stat().st_mtime_ns != made
    engine_for(random_model, max_batch=2)
    engine_for(random_model, precision="fp32")
    assert len([*(tmp_path / "cache").rglob("*.plan")]) == 3


def test_a_plan_that_others_can_write_is_not_loaded(random_model: Path, gpu: Gpu, tmp_path: Path) -> None:
    engine_for(random_model)
    (plan,) = (tmp_path / "cache").rglob("*.plan")
    plan.chmod(0o666)
    with pytest.raises(EngineError, match="a plan is code"):
        engine_for(random_model)
    plan.chmod(0o644)
    plan.parent.chmod(0o777)
    with pytest.raises(EngineError, match="a plan is code"):
        engine_for(random_model)


def test_prebuilt_only_refuses_to_build_and_says_the_command(
    random_model: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANET_ROS_TENSORRT", "prebuilt")
    with pytest.raises(EngineError, match=r"no plan has been built for Fake RTX.*export --engine tensorrt"):
        engine_for(random_model)
    monkeypatch.delenv("CANET_ROS_TENSORRT")
    engine_for(random_model)
    monkeypatch.setenv("CANET_ROS_TENSORRT", "prebuilt")
    engine_for(random_model)


def test_fewer_images_where_memory_is_short(random_model: Path, gpu: Gpu) -> None:
    width, height = RESOLUTION
    gpu.room = 5 * width * height * 2  # of two images and their results
    engine = engine_for(random_model, max_batch=4)
    assert engine.most_at_once == 2
    assert engine.fallback_reasons[0].startswith(
        "not 4 images at once, but 2: RuntimeError: cuMemAlloc: CUDA_ERROR_OUT_OF"
    )
    assert len(engine.run(images(3))[0]) == 3
    gpu.room = 1000
    with pytest.raises(EngineError, match="out of memory at 160x120"):
        engine_for(random_model, max_batch=4)


def test_without_a_cuda_graph_it_runs_too(random_model: Path, gpu: Gpu) -> None:
    gpu.capturable = False
    engine = engine_for(random_model)
    assert gpu.launched == 0
    assert engine.fallback_reasons[0].startswith("without a CUDA graph")
    assert engine.run(images(1))[0].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda:3"}, "this machine has 1 CUDA GPUs"),
        ({"device": "cpu"}, "does not run on the CPU"),
        ({"precision": "bf16"}, "use auto, fp32, fp16, int8"),
        ({"device": "dla:0", "precision": "fp32"}, "a DLA computes in fp16 and int8"),
        ({"device": "dla:0", "precision": "fp16"}, "cannot build for a DLA in fp16"),
        ({"precision": "int8"}, "--calibrate"),
    ],
)
def test_refusals_say_what_to_do(random_model: Path, gpu: Gpu, options: dict[str, str], words: str) -> None:
    with pytest.raises(EngineError) as raised:
        engine_for(random_model, **options)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_auto_takes_it_where_there_is_a_gpu(
    random_model: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canet_ros.engines._has_cuda_gpu", lambda: True)
    assert create_engine(EngineRequest(random_model, RESOLUTION)).name == "tensorrt"
    gpu.room = 0
    engine = create_engine(EngineRequest(random_model, RESOLUTION))
    assert engine.device == "cpu"
    assert engine.fallback_reasons[0].startswith("not tensorrt on cuda: out of memory")


def test_without_a_driver_it_says_so(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a driver")
    pytest.importorskip("cuda.bindings")
    monkeypatch.setenv("CANET_ROS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineError, match="the CUDA driver does not start"):
        engine_for(random_model)
