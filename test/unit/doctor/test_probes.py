# SPDX-License-Identifier: Apache-2.0
"""Probes of ``canet doctor`` with broken, missing and hanging packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canet_ros.doctor import probes
from canet_ros.doctor.finding import Probe, run_probe
from canet_ros.model.model_folder import available_models

BREAKAGES = {
    "ImportError": "raise ImportError('libbroken.so.1: cannot open shared object file')",
    "OSError": "raise OSError('libbroken.so.1: invalid ELF header')",
    "RuntimeError": "raise RuntimeError('no such device\\nsecond line')",
    "SystemExit": "import sys; sys.exit('licence expired')",
    "silent exit": "import os; os._exit(3)",
    "segmentation fault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "no version": "",
    "noise": "print('canet-doctor-findingx'); print('hello'); raise ValueError('noise')",
}


def broken(folder: Path, package: str, code: str) -> dict[str, str]:
    """An environment whose first package of this name is broken."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(code)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_package_is_one_finding(
    breakage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = broken(tmp_path, "openvino", BREAKAGES[breakage])
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    (finding,) = run_probe(Probe(("engine", "openvino"), "engine openvino", "note"))
    assert (finding.subject, finding.verdict) == ("engine openvino", "note")
    assert finding.text
    assert "\n" not in finding.text
    expected = {"ImportError": "libbroken", "SystemExit": "licence expired", "segmentation fault": "SIGSEGV"}
    assert expected.get(breakage, "") in finding.text


def test_a_package_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = broken(tmp_path, "openvino", "import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    (finding,) = run_probe(Probe(("engine", "openvino"), "engine openvino", "note", limit_s=3.0))
    assert finding.text == "did not answer within 3 s"


def test_gpus_that_pytorch_can_and_cannot_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "nvidia0")
    (finding,) = probes.torch()
    assert (finding.verdict, "cannot use this machine's NVIDIA GPU" in finding.text) == ("note", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"device {index}")
    (finding,) = probes.torch()
    assert (finding.verdict, finding.text.endswith("on device 0, device 1")) == ("ok", True)


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = probes.engine("openvino")
    assert (finding.verdict, finding.text) == ("note", "not installed")
    assert "openvino" in finding.advice


def doctor(report: Path, environment: dict[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "canet_ros.cli", "doctor", "--json", str(report), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(report.read_text())


@pytest.mark.parametrize("package", ["numpy", "cv2", "rclpy", "yaml"])
def test_a_broken_requirement_is_reported_beside_the_other_findings(package: str, tmp_path: Path) -> None:
    environment = broken(tmp_path, package, "raise RuntimeError('broken on purpose')")
    status, report = doctor(tmp_path / "report.json", environment)
    subjects = {"numpy": "NumPy", "cv2": "OpenCV", "rclpy": "ROS 2", "yaml": "in use"}
    findings = {finding["subject"]: finding for finding in report["findings"]}
    assert findings[subjects[package]]["verdict"] == "missing"
    assert "broken on purpose" in findings[subjects[package]]["text"]
    assert {"machine", "Python", "vision_msgs"} <= set(findings)
    assert status == 1
    assert report["runs"] is False


def test_a_broken_engine_is_a_fallback_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not available_models():
        pytest.skip("no model lies here")
    environment = broken(
        tmp_path, "openvino", "raise ImportError('libbroken.so.1: cannot open shared object file')"
    )
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    findings = {
        finding.subject: finding for finding in run_probe(Probe(("models",), "in use", limit_s=120.0))
    }
    assert "openvino" not in findings["in use"].text.partition("(")[0]
    assert "libbroken" in findings["fallback reason"].text


def test_without_the_default_model_another_one_is_loaded(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(random_model, tmp_path / "random")
    monkeypatch.setattr("canet_ros.model.model_folder.share_folders", lambda _: [tmp_path])
    models, default, used = probes.models()
    assert (models.text, default.advice) == ("random", "set model:=random")
    assert used.text.startswith("random at 160x120 on ")


def test_without_models_the_advice_is_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canet_ros.model.model_folder.share_folders", lambda _: [tmp_path])
    (finding,) = probes.models()
    assert (finding.verdict, finding.text) == ("missing", "none")
    assert "train" in finding.advice


@pytest.mark.parametrize(
    ("middleware", "ours", "words"),
    [
        (
            "rmw_fastrtps_cpp",
            60,
            ("60 with our settings for Fast DDS, latency 3 ms", "driver first: export FAST(RTPS|DDS)_"),
        ),
        (
            "rmw_cyclonedds_cpp",
            60,
            (
                "60 with our settings for Cyclone DDS, latency 3 ms",
                "receives images: export CYCLONEDDS_URI='<",
            ),
        ),
        (
            "rmw_cyclonedds_cpp",
            20,
            ("20 with our settings for Cyclone DDS", "sudo sysctl -w net.core.rmem_max="),
        ),
        ("rmw_zenoh_cpp", 20, ("at 30 Hz.$", "transport.md")),
    ],
)
def test_lost_images_give_advice_for_the_middleware_in_use(
    middleware: str, ours: int, words: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    from canet_ros.demo import transport_check

    tried: list[dict[str, str]] = []

    def measure(stream: Any, environment: Any) -> Any:
        tried.append(dict(environment))
        return transport_check.TransportResult(60, (30, ours)[len(tried) - 1], 3.0, 4.0)

    monkeypatch.setattr(transport_check, "check_transport", measure)
    monkeypatch.setenv("RMW_IMPLEMENTATION", middleware)
    (finding,) = probes.transport()
    assert finding.verdict == "note"
    assert re.search(words[0], finding.text)
    assert re.search(words[1], finding.advice)
