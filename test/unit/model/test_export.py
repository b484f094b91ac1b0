# SPDX-License-Identifier: Apache-2.0
"""Export, and calibration for int8."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.engines import EngineRequest, create_engine
from canet_ros.simulation import StreetDrive

RESOLUTION = (160, 120)


def test_a_truncated_engine_file_is_not_used(random_model: Path, own_cache: Path) -> None:
    image = cv2.resize(StreetDrive(1).frame(0).image, RESOLUTION)[None]
    request = EngineRequest(random_model, RESOLUTION, "openvino", "cpu", "fp32")
    expected, _ = create_engine(request).run(image)
    damaged = [path for pattern in ("*.blob", "*.onnx") for path in own_cache.rglob(pattern)]
    assert len(damaged) == 2  # compiled, deployment graph
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    mask, _ = create_engine(request).run(image)
    np.testing.assert_array_equal(mask, expected)


def test_exported_graph_takes_bytes_and_gives_bytes(random_model: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert main(["export", "--model", str(random_model), "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 120, 160, 3])
    ]
    outputs = {x.name: (x.type, x.shape) for x in session.get_outputs()}
    assert list(outputs) == ["mask", "confidence"]
    assert {kind for kind, _ in outputs.values()} == {"tensor(uint8)"}
    images = np.zeros((3, 120, 160, 3), np.uint8)
    assert [x.shape for x in session.run(None, {"images": images})] == [(3, 120, 160)] * 2


def test_int8_by_calibration(random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nncf")
    for seed in range(4):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), StreetDrive(seed).frame(0).image)
    export = ["export", "--model", str(random_model), "--precision", "int8"]
    assert main(export) == 1
    assert "--calibrate" in capsys.readouterr().err
    assert main([*export, "--calibrate", str(tmp_path), "--pictures", "4"]) == 0
    assert "openvino on cpu, int8" in capsys.readouterr().out
    image = cv2.resize(StreetDrive(9).frame(0).image, RESOLUTION)[None]
    exact, _ = create_engine(EngineRequest(random_model, RESOLUTION, "torch", "cpu", "fp32")).run(image)
    for engine in ("openvino", "onnxruntime"):
        mask, _ = create_engine(EngineRequest(random_model, RESOLUTION, engine, "cpu", "int8")).run(image)
        assert (mask == exact).mean() > 0.8, engine  # a random network is unsure of nearly every pixel


pytestmark = pytest.mark.usefixtures("own_cache")


def test_export_refuses_in_one_line(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", "--model", str(random_model)]
    assert main([*export, "--calibrate", str(tmp_path)]) == 1
    assert "contains no images" in capsys.readouterr().err
    assert main([*export, "--calibrate", str(tmp_path), "--precision", "fp32"]) == 1
    assert "int8" in capsys.readouterr().err
