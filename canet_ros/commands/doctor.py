# SPDX-License-Identifier: Apache-2.0
"""``canet doctor``: checks what this machine can run, what is missing and how to fix it.

It also explains why a running node publishes no results.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from canet_ros.commands import add_force_argument
from canet_ros.doctor.finding import Finding, Probe, run_probe

# Imports are limited to modules that cannot be broken; probes are processes.
from canet_ros.files import require_writable, write_json
from canet_ros.hints import install_ros, pip_install
from canet_ros.machine import describe_machine
from canet_ros.names import ENGINES

_OPTIONAL = {
    "vision_msgs": "class names are not published as label_info; they stay in the parameter class_names",
    "bondpy": "Nav2's lifecycle manager needs bond_timeout 0.0 to manage the node",
    "rosbags": f"canet demo --input cannot read rosbags: {pip_install('rosbags')}",
}
_NODE = "node "  # prefix of the subject of findings about running nodes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings")
    parser.add_argument("--graph-only", action="store_true", help="check only the running nodes")
    parser.add_argument(
        "--all-domains",
        action="store_true",
        help="also list this machine's nodes in other ROS_DOMAIN_IDs or with another middleware",
    )
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    require_writable(arguments.json, replace=arguments.force)  # before the checks, which take a while
    findings = []
    for finding in _findings(arguments):
        print(f"{finding.verdict:>7}  {finding.subject}: {finding.text}", flush=True)
        if finding.advice:
            print(f"{'':>7}  -> {finding.advice}", flush=True)
        findings.append(finding)
    runs = all(finding.verdict != "missing" for finding in findings)
    problems = [f for f in findings if f.subject.startswith(_NODE) and f.verdict != "ok"]
    if not runs:
        print("\nsegmentation does not run on this machine yet: see above")
    elif problems:
        print(f"\n{'; '.join(finding.text for finding in problems)}")
    elif not arguments.graph_only:
        print("\nall requirements of segmentation are met")
    if arguments.json:
        report = {
            "runs": runs,
            "machine": describe_machine(),
            "findings": [asdict(finding) for finding in findings],
        }
        write_json(arguments.json, report)
    return 0 if runs else 1


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    has_ros = _installed("rclpy")
    graph = Probe(("graph", "all" if arguments.all_domains else ""), "running nodes", "note")
    if arguments.graph_only:
        yield from run_probe(graph) if has_ros else [Finding("ROS 2", "missing", "no rclpy", install_ros())]
        return
    machine = describe_machine()
    text = f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}"
    yield Finding("machine", "ok", text)
    yield Finding("Python", "ok", sys.version.split()[0])
    probes = [
        Probe(("library", "numpy", "NumPy"), "NumPy"),
        Probe(("library", "cv2", "OpenCV"), "OpenCV"),
        *([Probe(("torch",), "PyTorch", "note")] if _installed("torch") else []),
        *(Probe(("engine", name), f"engine {name}", "note") for name in ENGINES),  # one is enough
        Probe(("models",), "in use", limit_s=120.0),
        *([Probe(("ros",), "ROS 2")] if has_ros else []),
    ]
    broken: set[str] = set()
    with ThreadPoolExecutor(max_workers=4) as pool:
        for found in pool.map(run_probe, probes):
            broken |= {finding.subject for finding in found if finding.verdict == "missing"}
            yield from found
    if not has_ros:
        yield Finding("ROS 2", "missing", "no rclpy", install_ros())
    yield from _optional_packages()
    if has_ros and not broken & {"ROS 2", "NumPy"}:
        yield from run_probe(Probe(("transport",), "camera images between processes", limit_s=120.0))
        yield from run_probe(graph)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _optional_packages() -> Iterator[Finding]:
    for package, cost in _OPTIONAL.items():
        found = run_probe(Probe(("optional", package), package, "note")) if _installed(package) else []
        if not found:
            found = [Finding(package, "note", f"not installed: {cost}")]
        yield from found
