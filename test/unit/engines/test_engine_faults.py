# SPDX-License-Identifier: Apache-2.0
"""What a vehicle meets: broken packages, caches that cannot be written, GPUs that do not load, engines gone wrong.

Packages are broken for real. GPUs are faked at the edge of ONNX Runtime and of the engine: there is none here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from canet_ros.engines import EngineRequest, create_engine
from canet_ros.engines.engine import UNLIMITED
from canet_ros.errors import EngineError
from canet_ros.files import sha256
from canet_ros.model.model_folder import load_network, save_model
from canet_ros.pipeline.segmenter import Segmenter

# Imported before the tests put broken packages of these names into their place, which gives them back.
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

RESOLUTION = (160, 120)
IMAGE = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)

# --- packages that are installed and do not work ---------------------------------------------------------------------

BROKEN = {
    "ImportError": "raise ImportError('libopenvino.so.2641: cannot open shared object file')",
    "SystemExit": "import sys; sys.exit('no licence')",
    "no content": "",
}


@pytest.mark.parametrize(
    ("package", "fault"), [*(("openvino", fault) for fault in BROKEN), ("onnxruntime", "ImportError")]
)
def test_a_package_that_does_not_import_falls_back(
    random_model: Path,
    tmp_path: Path,
    module_cache: None,
    package: str,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(BROKEN[fault])
    monkeypatch.syspath_prepend(tmp_path)
    of_the_engine = (f"canet_ros.engines.{package}_engine", "canet_ros.model.openvino_core")
    for name in [name for name in sys.modules if name.partition(".")[0] == package or name in of_the_engine]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EngineError) as refused:
        create_engine(EngineRequest(random_model, RESOLUTION, package, "cpu"))
    assert f"engine {package} " in str(refused.value)
    assert "\n" not in str(refused.value)
    assert fault in str(refused.value) or fault == "no content"
    found = create_engine(EngineRequest(random_model, RESOLUTION, device="cpu"))
    if package == "openvino":  # the first that auto tries
        assert found.name in ("torch", "onnxruntime")
        assert found.fallback_reasons == (f"not openvino on cpu: {refused.value}",)
    else:
        assert found.name == "openvino"


def test_int8_without_scales_leaves_auto_its_choice(random_model: Path, own_cache: Path) -> None:
    engine = create_engine(EngineRequest(random_model, RESOLUTION, device="cpu", precision="int8"))
    assert engine.name == "openvino"
    assert engine.precision != "int8"
    (sentence,) = engine.fallback_reasons
    assert sentence.startswith("not int8: ")
    assert "canet export" in sentence
    with pytest.raises(EngineError, match="is not calibrated"):
        create_engine(EngineRequest(random_model, RESOLUTION, "openvino", "cpu", "int8"))


# --- a cache that cannot be written ----------------------------------------------------------------------------------


def places_left() -> set[str]:
    return {str(path) for place in ("/tmp", "/dev/shm") for path in Path(place).glob("canet_ros-*")}


@pytest.mark.parametrize(
    "environment",
    [
        {"CANET_ROS_CACHE": "FILE"},
        {"CANET_ROS_CACHE": None, "XDG_CACHE_HOME": None, "HOME": "/proc"},
    ],
    ids=lambda variables: " ".join(f"{name}={value}" for name, value in variables.items()),
)
def test_without_a_cache_it_runs_and_says_so(
    random_model: Path, tmp_path: Path, environment: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    before = places_left()
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value.replace("FILE", str(tmp_path / "file")))
    found = create_engine(EngineRequest(random_model, RESOLUTION, device="cpu"))
    assert found.name == "openvino"
    (sentence,) = found.fallback_reasons
    assert sentence.startswith("not cached for the next start: cannot write ")
    assert "set CANET_ROS_CACHE" in sentence
    assert places_left() <= before


def test_a_read_only_cache_that_is_complete_is_used(random_model: Path, own_cache: Path) -> None:
    create_engine(EngineRequest(random_model, RESOLUTION, "openvino", "cpu"))
    for lock in own_cache.rglob("*.lock"):
        lock.unlink()
        lock.mkdir()  # nobody can lock, so nobody can build
    assert create_engine(EngineRequest(random_model, RESOLUTION, "openvino", "cpu")).fallback_reasons == ()


def test_a_compiled_file_of_another_version_is_built_anew(random_model: Path, own_cache: Path) -> None:
    request = EngineRequest(random_model, RESOLUTION, "openvino", "cpu", "fp32")
    expected, _ = create_engine(request).run(IMAGE[None])
    (blob,) = own_cache.rglob("*.blob")
    blob.write_bytes(b"what another version wrote")
    blob.with_name(f"{blob.name}.sha256").write_text(sha256(blob))
    engine = create_engine(request)
    np.testing.assert_array_equal(engine.run(IMAGE[None])[0], expected)
    create_engine(request)
    assert blob.stat().st_size > 1000


# --- ONNX Runtime whose GPU does not load, faked at its edge ---------------------------------------------------------


class FakeSession:
    """Of a build for GPUs on a machine where one of the two libraries does not load."""

    loads: tuple[str, ...] = ()
    options: dict[str, Any]

    def __init__(self, path: str, options: object, providers: list[tuple[str, dict[str, Any]]]) -> None:
        self._providers = [name for name, _ in providers if name in (*self.loads, "CPUExecutionProvider")]
        type(self).options = dict(providers)["CUDAExecutionProvider"] if len(providers) > 1 else {}

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(shape=["batch", 120, 160, 3])]

    def get_providers(self) -> list[str]:
        return self._providers

    def run(self, names: list[str], inputs: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        shape = inputs["images"].shape[:3]
        return [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)]

    def io_binding(self) -> SimpleNamespace:
        bound: dict[str, Any] = {}
        return SimpleNamespace(
            bound=bound, bind_ortvalue_input=bound.__setitem__, bind_ortvalue_output=bound.__setitem__
        )

    def run_with_iobinding(self, binding: SimpleNamespace) -> None:
        results = self.run(["mask", "confidence"], {"images": binding.bound["images"].numpy()})
        for name, planes in zip(("mask", "confidence"), results):
            binding.bound[name].update_inplace(planes)


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> type[FakeSession]:
    import onnxruntime

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = type("Session", (FakeSession,), {})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_shape_and_type",
        lambda shape, kind, device, index: allocate(shape, kind, "cpu", 0),
    )
    return session


def test_bound_memory_gives_the_same_masks(random_model: Path, own_cache: Path) -> None:
    """The binding of a GPU, on the CPU and with ONNX Runtime itself."""
    engine: Any = create_engine(EngineRequest(random_model, RESOLUTION, "onnxruntime", "cpu"))
    for count in (1, 3, 1):
        images = np.random.default_rng(count).integers(0, 256, (count, 120, 160, 3), np.uint8)
        for bound, plain in zip(engine._run_bound(images), engine.run(images)):
            np.testing.assert_array_equal(bound, plain)


def test_landing_on_the_cpu_is_refused(random_model: Path, gpu_build: type[FakeSession]) -> None:
    with pytest.raises(EngineError, match=r"cannot start CUDAExecutionProvider .*the log above"):
        create_engine(EngineRequest(random_model, RESOLUTION, "onnxruntime", "cuda"))


def test_auto_lands_on_the_cpu_and_the_device_says_so(
    random_model: Path, gpu_build: type[FakeSession]
) -> None:
    engine = create_engine(EngineRequest(random_model, RESOLUTION, "onnxruntime", "auto"))
    assert (engine.device, engine.precision) == ("cpu", "fp32")
    assert "cannot start CUDAExecutionProvider" in engine.fallback_reasons[0]
    assert "CPUExecutionProvider" in engine.reason


def test_a_gpu_that_loads_is_used(random_model: Path, gpu_build: type[FakeSession]) -> None:
    gpu_build.loads = ("CUDAExecutionProvider",)
    engine = create_engine(EngineRequest(random_model, RESOLUTION, "onnxruntime", "cuda:1"))
    assert (engine.device, engine.precision, engine.fallback_reasons) == ("cuda:1", "fp16", ())
    assert gpu_build.options == {"device_id": 1, "prefer_nhwc": "1"}


# --- engines that return rubbish -------------------------------------------------------------------------------------


class Faulty:
    """An engine that fails in a way of choice once it has started."""

    name, device, precision, reason = "openvino", "cpu", "fp32", "as asked"
    fallback_reasons: tuple[str, ...] = ()
    most_at_once = UNLIMITED

    def __init__(self, run: Callable[[NDArray[np.uint8]], Any]) -> None:
        self.run = run


def with_engine(segmenter: Segmenter, run: Callable[[NDArray[np.uint8]], Any]) -> Segmenter:
    return Segmenter(
        segmenter.spec, Faulty(run), segmenter.resolution, segmenter.folder, segmenter.graph_hash
    )


def planes(images: NDArray[np.uint8], value: int = 1, dtype: Any = np.uint8) -> Any:
    return np.full(images.shape[:3], value, dtype)


def raises(error: Exception) -> Callable[[NDArray[np.uint8]], Any]:
    def run(_: NDArray[np.uint8]) -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            lambda x: (planes(x, dtype=np.float32) * np.nan, planes(x)),
            r"a mask of float32 \(1, 120, 160\) where uint8",
        ),
        (lambda x: (planes(x), planes(x, dtype=np.int64)), "a confidence of int64"),
        (
            lambda x: (planes(x)[:, 1:], planes(x)),
            r"uint8 \(1, 119, 160\) where uint8 \(1, 120, 160\) was expected",
        ),
        (lambda x: (planes(x), planes(x, 0)), "returned NaN"),
        (lambda x: (planes(x, 77), planes(x)), "holds class 77; the model has 11 classes"),
        (lambda x: None, "NoneType, expected mask and confidence"),
        (lambda x: (planes(x), None), "a confidence of NoneType"),
        (
            raises(RuntimeError("Exception from a.cpp:1:\nthe device\nis gone")),
            "RuntimeError: the device is gone",
        ),
    ],
)
def test_what_can_be_no_result_is_refused(segmenter: Segmenter, run: Any, words: str) -> None:
    with pytest.raises(EngineError, match=rf"^engine openvino on cpu.*{words}"):
        with_engine(segmenter, run)(IMAGE)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_an_overflow_is_found(random_model: Path, tmp_path: Path, own_cache: Path, engine: str) -> None:
    spec, network = load_network(random_model)
    network.head.weight.data.fill_(3e38)  # finite each, but not their sum
    save_model(tmp_path / "model", spec, network, half=False)
    with pytest.raises(EngineError, match="returned NaN"):
        Segmenter.load(tmp_path / "model", "cpu", engine, "fp32")(IMAGE)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_makes_smaller_batches(segmenter: Segmenter, error: Exception) -> None:
    sizes: list[int] = []

    def run(images: NDArray[np.uint8]) -> Any:
        sizes.append(len(images))
        if len(images) > 2:
            raise error
        return planes(images), planes(images)

    small = with_engine(segmenter, run)
    assert len(small.segment_batch([IMAGE] * 5)) == 5
    assert sizes == [5, 2, 2, 1]
    assert small.engine.fallback_reasons[0].startswith(
        "not 5 images at once, but 2: engine openvino on cpu: "
    )
    sizes.clear()
    small.segment_batch([IMAGE] * 4)
    assert sizes == [2, 2], "what does not fit is not tried again"
    assert len(small.engine.fallback_reasons) == 1
    with pytest.raises(EngineError, match="engine openvino on cpu"):
        with_engine(segmenter, raises(error)).segment_batch([IMAGE])


def test_out_of_memory_at_the_start_makes_smaller_batches(
    random_model: Path, gpu_build: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = 2

    def run(self: FakeSession, names: list[str], inputs: dict[str, NDArray[np.uint8]]) -> Any:
        if len(inputs["images"]) > fits:
            raise RuntimeError("CUDA failure 2: out of memory")
        return FakeSession.run(self, names, inputs)

    gpu_build.loads = ("CUDAExecutionProvider",)
    monkeypatch.setattr(gpu_build, "run", run)
    segmenter = Segmenter.load(random_model, "cuda", "onnxruntime", max_batch=4)
    assert segmenter.engine.fallback_reasons[0].startswith("not 4 images at once, but 2: ")
    assert len(segmenter.segment_batch([IMAGE] * 4)) == 4
    fits = 0
    with pytest.raises(EngineError, match="out of memory at 160x120"):
        Segmenter.load(random_model, "cuda", "onnxruntime", max_batch=4)


# --- a model that changes on disk ------------------------------------------------------------------------------------


def test_streams_answer_as_one_call_at_a_time_does(random_model: Path) -> None:
    request = EngineRequest(random_model, RESOLUTION, "openvino", "cpu", "fp32")
    one, many = create_engine(request), create_engine(replace(request, streams=2))
    assert (one.streams, many.streams) == (1, 2)
    images = [
        np.random.default_rng(seed).integers(0, 256, (1, *RESOLUTION[::-1], 3), np.uint8) for seed in range(6)
    ]
    with ThreadPoolExecutor(3) as pool:
        for found, expected in zip(pool.map(many.run, images), map(one.run, images)):
            assert all(map(np.array_equal, found, expected))
