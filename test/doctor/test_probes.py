# SPDX-License-Identifier: Apache-2.0
"""``canet doctor`` on a machine whose packages are broken: it looks at all the rest, and says what is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canet_ros.doctor.finding import Probe, run_probe

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
    said = {"ImportError": "libbroken", "SystemExit": "licence expired", "segmentation fault": "SIGSEGV"}
    assert said.get(breakage, "") in finding.text


def test_a_package_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = broken(tmp_path, "openvino", "import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    (finding,) = run_probe(Probe(("engine", "openvino"), "engine openvino", "note", limit_s=3.0))
    assert finding.text == "did not answer within 3 s"


def doctor(report: Path, environment: dict[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "canet_ros.cli", "doctor", "--json", str(report), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(report.read_text())


@pytest.mark.parametrize("package", ["numpy", "cv2", "torch", "rclpy", "yaml"])
def test_what_everything_needs_may_be_broken(package: str, tmp_path: Path) -> None:
    environment = broken(tmp_path, package, "raise RuntimeError('broken on purpose')")
    status, report = doctor(tmp_path / "report.json", environment)
    subjects = {"numpy": "NumPy", "cv2": "OpenCV", "torch": "PyTorch", "rclpy": "ROS 2", "yaml": "in use"}
    findings = {finding["subject"]: finding for finding in report["findings"]}
    assert findings[subjects[package]]["verdict"] == "missing"
    assert "broken on purpose" in findings[subjects[package]]["text"]
    assert {"machine", "Python", "vision_msgs", "cv_bridge"} <= set(findings)
    assert status == 1
    assert report["runs"] is False
