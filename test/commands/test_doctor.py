# SPDX-License-Identifier: Apache-2.0
"""``canet doctor`` on this machine, compared with what Python knows about it, and on one with broken packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from canet_ros.doctor.finding import Probe, run_probe
from canet_ros.doctor.probes import MIN_RECEIVED_FRACTION
from canet_ros.launching.transport import PROFILE_VARIABLES
from canet_ros.model.model_folder import available_models
from canet_ros.names import ENGINES

# Shared memory alone, and room in it for a single fragment of a camera image: hardly any image arrives.
STARVING_PROFILE = """<?xml version="1.0"?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <transport_descriptors><transport_descriptor>
    <transport_id>starving</transport_id><type>SHM</type><segment_size>98304</segment_size>
  </transport_descriptor></transport_descriptors>
  <participant profile_name="starving" is_default_profile="true"><rtps>
    <userTransports><transport_id>starving</transport_id></userTransports>
    <useBuiltinTransports>false</useBuiltinTransports>
  </rtps></participant>
</profiles></dds>
"""


def doctor(report, environment, *program):
    program = program or ("-m", "canet_ros.cli")
    done = subprocess.run(
        [sys.executable, *program, "doctor", "--json", str(report)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done, json.loads(report.read_text())


def by_subject(report):
    return {finding["subject"]: finding for finding in report["findings"]}


@pytest.fixture(scope="module")
def starving_run(tmp_path_factory):
    """The doctor in an environment in which camera images do not cross."""
    rclpy = pytest.importorskip("rclpy")
    if rclpy.get_rmw_implementation_identifier() != "rmw_fastrtps_cpp":
        pytest.skip("the profile is Fast DDS's")
    folder = tmp_path_factory.mktemp("doctor")
    profile = folder / "starving.xml"
    profile.write_text(STARVING_PROFILE)
    return doctor(folder / "report.json", {**os.environ, **dict.fromkeys(PROFILE_VARIABLES, str(profile))})


@pytest.mark.ros
def test_findings_describe_this_machine(starving_run):
    done, report = starving_run
    findings = by_subject(report)
    assert findings["Python"]["text"] == sys.version.split()[0]
    assert findings["NumPy"]["text"] == np.__version__
    assert findings["OpenCV"]["text"] == cv2.__version__
    assert {f"engine {name}" for name in ENGINES} <= set(findings)
    assert "rclpy" in findings["ROS 2"]["text"]
    assert all(name in findings["models"]["text"] for name in available_models())
    if available_models():
        assert any(name in findings["in use"]["text"] for name in ENGINES)
    assert report["runs"] == all(finding["verdict"] != "missing" for finding in report["findings"])
    assert done.returncode == (0 if report["runs"] else 1)
    for finding in report["findings"]:
        assert finding["text"] in done.stdout
        assert finding["advice"] in done.stdout


@pytest.mark.ros
def test_lost_images_give_advice(starving_run):
    _, report = starving_run
    images = by_subject(report)["camera images between processes"]
    assert images["verdict"] == "note"
    starved = int(images["text"].partition(" of 60 received")[0])
    assert starved < 60 * MIN_RECEIVED_FRACTION
    received = int(images["text"].partition(" with our settings for Fast DDS")[0].rpartition("; ")[2])
    assert received > starved, "how many more depends on what else the machine does"
    assert "camera driver" in images["advice"]
    assert "fastdds.xml" in images["advice"] or "fastdds_small.xml" in images["advice"]


def test_without_ros_the_advice_is_to_install_it(tmp_path):
    without_rclpy = (
        "import sys; sys.modules['rclpy'] = None; from canet_ros.cli import main; sys.exit(main())"
    )
    done, report = doctor(tmp_path / "report.json", dict(os.environ), "-c", without_rclpy)
    assert done.returncode == 1
    assert report["runs"] is False
    finding = by_subject(report)["ROS 2"]
    assert finding["verdict"] == "missing"
    assert "source /opt/ros" in finding["advice"]
    assert "camera images between processes" not in by_subject(report)


BREAKAGES = {
    "raise ImportError('libbroken.so.1: cannot open shared object file')": "libbroken",
    "import sys; sys.exit('licence expired')": "licence expired",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "SIGSEGV",
    "print('canet-doctor-findingx'); print('hello'); raise ValueError('noise')": "",
    "import time; time.sleep(600)": "did not answer within 3 s",
}


def broken(folder, package, code):
    """PYTHONPATH with a broken package of this name in front."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(code)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize("code", BREAKAGES)
def test_a_broken_package_is_one_finding(code, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", broken(tmp_path, "openvino", code))
    limit_s = 3.0 if "sleep" in code else 600.0
    (finding,) = run_probe(Probe(("engine", "openvino"), "engine openvino", "note", limit_s=limit_s))
    assert (finding.subject, finding.verdict) == ("engine openvino", "note")
    assert finding.text
    assert "\n" not in finding.text
    assert BREAKAGES[code] in finding.text
