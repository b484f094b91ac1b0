# SPDX-License-Identifier: Apache-2.0
"""Export, calibration for int8, and derived files: built once, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.engines import EngineRequest, create_engine
from canet_ros.model import cache
from canet_ros.simulation import StreetDrive

pytestmark = pytest.mark.usefixtures("own_cache")

RESOLUTION = (160, 120)


@pytest.mark.parametrize("how", [(), ("--engine", "tensorrt", "--precision", "fp16")])
def test_exported_graph_takes_bytes_and_gives_bytes(
    random_model: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert main(["export", "--model", str(random_model), "--out", str(out), *how]) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    ends = [(x.name, x.type, x.shape) for x in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [
        ("images", "tensor(uint8)", ["batch", 120, 160, 3]),
        ("mask", "tensor(uint8)", ["batch", 120, 160]),
        ("confidence", "tensor(uint8)", ["batch", 120, 160]),
    ]
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


def build(path: Path) -> None:
    path.write_bytes(b"b" * 1000)


@pytest.mark.parametrize("damage", ["changed", "without checksum", "binary checksum", "folder"])
def test_a_broken_file_is_built_again(damage: str) -> None:
    path = cache.derived_file("thing", build)
    checksum = path.with_name("thing.sha256")
    if damage == "changed":
        path.write_bytes(b"c" * 1000)
    elif damage == "without checksum":
        checksum.unlink()
    elif damage == "binary checksum":
        checksum.write_bytes(b"\xff" * 64)
    else:
        path.unlink()
        (path / "deep").mkdir(parents=True)
    assert not cache.is_complete(path)
    assert cache.derived_file("thing", build).read_bytes() == b"b" * 1000
    assert cache.is_complete(path)


def test_a_process_that_hangs_while_it_builds_does_not_hold_up_others(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_S", 0.1)
    with cache.locked(own_cache / "thing"), cache.substituted() as remarks:
        path = cache.derived_file("thing", lambda path: path.write_text("mine") and None)
        assert path.read_text() == "mine"
        assert "another process" in remarks[0]
    assert not path.exists()


def test_what_a_process_left_that_was_ended_while_it_built_goes_with_the_next_build(own_cache: Path) -> None:
    """A node that is stopped while TensorRT builds; another process may be building another file beside it."""
    program = """if True:
        import os
        from canet_ros.model import cache
        cache.derived_file("thing", lambda path: path.write_bytes(bytes(1000)) and os._exit(0))"""
    subprocess.run([sys.executable, "-c", program], check=True)
    others = own_cache / "building-other-x"
    others.mkdir()
    assert len(list(own_cache.glob("building-*"))) == 2
    cache.derived_file("thing", lambda path: path.write_text("whole") and None)
    assert list(own_cache.glob("building-*")) == [others]
