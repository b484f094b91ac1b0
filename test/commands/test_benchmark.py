# SPDX-License-Identifier: Apache-2.0
"""``canet benchmark`` runs and writes complete, consistent JSON; speed is not tested."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path

import pytest

from canet_ros.cli import main

pytestmark = pytest.mark.usefixtures("own_cache")


def test_engines(random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--engine", "openvino", "onnxruntime", "--precision", "fp32", "bf16", "--rounds", "2"]
    arguments += ["--resolution", "96x64", "--batch", "1", "2"]
    arguments += ["--json", str(file)]
    assert main(["benchmark", "--model", str(random_model), *arguments]) == 0
    figures = json.loads(file.read_text())
    assert figures["machine"]["cores"] >= 1
    assert figures["machine"]["packages"]["torch"] == metadata.version("torch")
    measured = [row for row in figures["engines"] if "error" not in row]
    cases = {(row["engine"], row["precision"], row["resolution"], row["batch"]) for row in measured}
    engines = [(engine, batch) for engine in ("openvino", "onnxruntime") for batch in (1, 2)]
    for engine, batch in [("plain PyTorch", 1), *engines]:
        assert (engine, "fp32", "96x64", batch) in cases
    for row in measured:
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["p95_ms"]
        assert row["fps"] == pytest.approx(row["batch"] / row["median_ms"] * 1e3)
        assert row["gflops"] == pytest.approx(row["gflop"] * row["fps"])
    refused = [row for row in figures["engines"] if "error" in row]
    assert {row["engine"] for row in refused} >= {"onnxruntime"}
    assert "| plain PyTorch |" in capsys.readouterr().out


@pytest.mark.ros
def test_node(random_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    file = tmp_path / "figures.json"
    arguments = ["--engine", "onnxruntime", "--precision", "fp32", "--frames", "4"]
    assert main(["benchmark", "--node", "--model", str(random_model), *arguments, "--json", str(file)]) == 0
    node = json.loads(file.read_text())["node"]
    assert node["latency_ms"]["median"] > node["engine_ms"]["min"] > 0
    assert set(node["stages_ms"]) == {"transport", "wait", "convert", "inference", "publish", "transport out"}
    assert all(value == value for value in node["stages_ms"].values())
    assert 0 < node["sustained"]["rate_out_hz"] <= 1.1 * node["sustained"]["rate_in_hz"]
    assert node["memory_mb"] > 50
    assert node["cameras"]["count"] == 4


@pytest.mark.ros
def test_a_report_goes_on_where_a_step_fails(tmp_path: Path, random_model: Path) -> None:
    from canet_ros.benchmark import report

    steps = [
        report.Step("refused", ("export", "--model", "no such model"), 300),
        report.Step("late", ("demo", "--seconds", "3600", "--out", str(tmp_path / "demo")), 2),
        report.Step("models", ("models", "--json", str(tmp_path / "m.json")), 300, tmp_path / "m.json"),
    ]
    environment = {**os.environ, "CANET_ROS_CACHE": str(tmp_path / "cache")}
    refused, late, models = [report.run_step(step, environment, tmp_path / step.name) for step in steps]
    assert "no such model" in refused["error"]
    assert "not finished within 2 s" in late["error"]
    assert "error" not in models
    assert [row["name"] for row in models["figures"]]
    machine = {"processor": "any", "cores": 2, "gpus": [], "packages": {"torch": "2.13", "numpy": "2.4"}}
    page = report.page({"machine": machine, "model": "m", "steps": [refused, late, models]})
    assert page.count("\n| ") == 5
    assert "not finished within 2 s" in page
    assert "- gpus: none\n- packages: torch 2.13, numpy 2.4\n" in page
    assert refused["error"].startswith("canet export: ")
