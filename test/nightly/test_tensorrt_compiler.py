# SPDX-License-Identifier: Apache-2.0
"""TensorRT's own parser and compiler take our graphs: TensorRT for RTX builds ahead of time, without a GPU or a driver.

Asserted for four generations of GPUs, without a warning. Not asserted: that a plan runs, or how fast; nor that a
Jetson's TensorRT compiles the same, whose parser is of the same source and whose compiler is another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_dialects import OTHERS

from canet_ros import activity
from canet_ros.engines.tensorrt_plan import Target, build_plan, log_of
from canet_ros.errors import EngineError
from canet_ros.model.deployment import deployment_graph
from canet_ros.model.model_folder import Resolution, available_models, find_model

WHEELS = "TensorRT's compiler is not here: pip install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings"
trt = pytest.importorskip("tensorrt_rtx_bindings", reason=WHEELS)
pytest.importorskip("onnx")

pytestmark = pytest.mark.usefixtures("module_cache")

GENERATIONS = ((7, 5), (8, 6), (8, 9), (12, 0))  # Turing, Ampere, Ada, Blackwell
OWN, LARGE, ODD = (480, 360), (1024, 512), (641, 479)
SHIPPED = sorted(available_models())
# Every model, precision, size and kind of batch; a plan for all four generations each.
CASES = [
    (model, precision, size, max_batch)
    for model in SHIPPED
    for precision in ("fp16", "int8")
    for size, max_batch in ((OWN, 1), (LARGE, 4), (ODD, 3))
]


@pytest.mark.parametrize(("model", "precision", "size", "max_batch"), CASES)
def test_shipped_models_compile_for_every_generation(
    model: str, precision: str, size: Resolution, max_batch: int, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = deployment_graph(find_model(model), size, "tensorrt", precision).read_bytes()
    log = log_of(trt)
    plan, *_ = build_plan(trt, log, graph, Target(max_batch, precision, generations=GENERATIONS))
    assert len(plan) > 1e6
    assert log.warnings == log.errors == []
    assert "WARNING" not in "".join(capfd.readouterr())  # the compiler's own, beside the logger


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_others_compile_for_every_generation(name: str, tmp_path: Path) -> None:
    case = OTHERS[name]
    folder = case.imported(case.make(), tmp_path)
    log = log_of(trt)
    graph = deployment_graph(folder, case.size, "tensorrt", "fp16").read_bytes()
    build_plan(trt, log, graph, Target(2, "fp16", generations=GENERATIONS))
    assert log.warnings == log.errors == []


def test_fp32_compiles_from_ampere_on() -> None:
    graph = deployment_graph(find_model(SHIPPED[0]), (160, 120), "tensorrt", "fp32").read_bytes()
    log = log_of(trt)
    build_plan(trt, log, graph, Target(2, "fp32", generations=GENERATIONS[1:]))
    assert log.warnings == log.errors == []


def test_convolutions_are_multiplied_in_int8() -> None:
    """Through the casts between scales in fp32 and activations in fp16."""
    lines: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            lines.extend(message.splitlines())

    graph = deployment_graph(
        find_model("canet-mobilenet_v2-camvid"), (160, 120), "tensorrt", "int8"
    ).read_bytes()
    build_plan(trt, Log(), graph, Target(1, "int8", generations=((8, 6),)), detailed=True)
    convolutions = [line.partition("Outputs:")[0] for line in lines if "LayerType: correlation" in line]
    in_int8 = [line for line in convolutions if "Int8" in line.partition("Constants:")[0]]
    assert len(in_int8) > 0.6 * len(convolutions) > 30


@pytest.mark.parametrize("dialect", ["openvino", "onnxruntime"])
def test_other_dialects_are_refused_with_the_parsers_reason(dialect: str) -> None:
    graph = deployment_graph(find_model(SHIPPED[0]), (160, 120), dialect, "fp32").read_bytes()
    with pytest.raises(EngineError, match=r"parser refuses the graph: /Reshape \(Reshape\): .*UInt8"):
        build_plan(trt, log_of(trt), graph, Target(1, "fp32", generations=((8, 6),)))


def test_a_build_reports_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = deployment_graph(find_model(SHIPPED[0]), (160, 120), "tensorrt", "fp16").read_bytes()
    described: list[str] = []
    doing = activity.doing

    @contextlib.contextmanager
    def listening(text: str) -> Iterator[Callable[[str], None]]:
        with doing(text) as describe:
            yield lambda words: (describe(words), described.append(activity.now()))  # type: ignore[func-returns-value]

    monkeypatch.setattr(activity, "doing", listening)
    build_plan(trt, log_of(trt), graph, Target(1, "fp16", generations=((8, 6),)))
    assert described
    assert all(text.startswith(activity.BUILDING) and text.endswith("%") for text in described)
    assert activity.now() == ""
