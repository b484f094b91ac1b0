# SPDX-License-Identifier: Apache-2.0
"""``make soak``: what is well passes, what drifts or is wrong is found."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from drift import TOLERANCES, Tolerance, judge
from process_usage import usage
from soak_run import main

# A process of its own: what another test has given back would hide what grows.
LEAKING = """
import os, sys, threading
ended, kept = threading.Event(), []
for _ in sys.stdin:
    print(flush=True)
    kept += [os.urandom(16_000_000), open(os.devnull), open(os.devnull)]
    threading.Thread(target=ended.wait).start()
ended.set()
"""


def test_what_grows_in_a_process_is_found() -> None:
    rounds = []
    with subprocess.Popen(
        [sys.executable, "-c", LEAKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as leaking:
        assert leaking.stdin is not None
        assert leaking.stdout is not None
        for _ in range(9):
            print(file=leaking.stdin)
            leaking.stdout.readline()
            rounds.append(asdict(usage(leaking.pid)))
    for name in ("memory_mb", "descriptors", "threads"):
        verdict = judge([values[name] for values in rounds], TOLERANCES[name])
        assert verdict.drifts, (name, verdict)
        assert str(verdict).startswith("DRIFTS: from ")


@pytest.mark.parametrize(
    "steady",
    [
        [100] * 9,
        [100, 130, 140, 141, 142, 141, 142, 141, 142],  # warms up
        [140, 140, 140, 140, 140, 140, 140, 900, 140],  # a peak
        [140, 140, 140, 300, 300, 140, 140, 140, 300],
        [300, 250, 200, 150, 140, 140, 140, 140, 140],
    ],
)
def test_what_settles_or_peaks_does_not_drift(steady: list[float]) -> None:
    verdict = judge(steady, Tolerance(20))
    assert verdict.told
    assert not verdict.drifts


def test_few_samples_tell_nothing() -> None:
    verdict = judge([1, 100, 1000, 10_000], Tolerance(1))
    assert not verdict.told
    assert not verdict.drifts


def parameters(model: Path) -> list[str]:
    return ["--model", str(model), "--engine", "onnxruntime", "--precision", "fp32", "--device", "cpu"]


@pytest.mark.ros
@pytest.mark.slow  # a quarter of a minute, and the node's start: every step once
def test_a_quarter_of_a_minute(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy")
    from soak import _STEPS

    figures = tmp_path / "soak.json"
    status = main(["--minutes", "0.25", "--json", str(figures), *parameters(random_model)])
    report = json.loads(figures.read_text())
    assert status == 0, report["faults"]
    assert report["passed"]
    assert report["totals"]["wrong_masks"] == 0
    assert report["totals"]["masks"] > 20
    assert report["minutes"][0]["steps"][:3] == list(_STEPS)[:3]
    assert report["rounds"][0]["descriptors"] > 5
    assert "0 faults" in capsys.readouterr().out


@pytest.mark.ros
def test_a_wrong_mask_and_a_node_that_ends_are_found(random_model: Path) -> None:
    pytest.importorskip("rclpy")
    from soak import Soak, SoakSettings

    program = [str(Path(__file__).parent / "drifting_node.py")]
    exact = {"model": str(random_model), "engine": "onnxruntime", "precision": "fp32", "device": "cpu"}
    said: list[str] = []
    soak = Soak(SoakSettings(1.0, exact, cameras=2, program=program), said.append)
    soak.run()
    assert not soak.report.passed
    assert soak.report.totals["wrong_masks"] > 0
    assert any("a mask agrees with the first of its image in" in line for line in said)
    assert soak.report.ran_s < 50
    assert any("the node ended with status 7" in line for line in said)


@pytest.mark.ros
def test_a_run_in_which_no_masks_come_any_more_ends_as_planned(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    import soak as module

    exact = {"model": str(random_model), "engine": "onnxruntime", "precision": "fp32", "device": "cpu"}
    soak = module.Soak(module.SoakSettings(0.1, exact, cameras=1), lambda _: None)
    send = module.SoakGraph.send
    begun = lambda: soak._end_s < float("inf")  # noqa: E731
    monkeypatch.setattr(module.SoakGraph, "send", lambda *given: None if begun() else send(*given))
    monkeypatch.setattr(module, "_RECOVERY_S", 0.3)
    monkeypatch.setattr(module, "_HEALTH_TIMEOUT_S", 0.3)
    soak.run()
    assert not soak.report.passed
    assert any("had no mask within" in fault["fault"] for fault in soak.report.faults)
    assert soak.report.ran_s >= 6
