# SPDX-License-Identifier: Apache-2.0
"""``canet doctor``: what this machine can run, what would be used and why, what is missing, and what to do."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from canet_ros.files import require_writable, write_json
from canet_ros.hints import canet_command, install_engine, install_ros, pip_install, see_docs
from canet_ros.inference.engines import EngineError
from canet_ros.inference.model_folder import ModelError, available_models, shipped_model
from canet_ros.launching.transport import (
    ENOUGH_SHARED_MEMORY_BYTES,
    PROFILE_VARIABLES,
    free_shared_memory_bytes,
    transport_environment,
)
from canet_ros.machine import describe_machine, installed_version
from canet_ros.names import ENGINES

ARRIVES = 0.99  # of the images of a stream
# Major version of rclpy where no ROS_DISTRO tells.
_DISTROS = {"3": "humble", "7": "jazzy", "9": "kilted"}
_OPTIONAL = {
    "vision_msgs": "class names are not published as label_info; they stay in the parameter class_names",
    "rosbags": f"canet demo --input cannot read rosbags: {pip_install('rosbags')}",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        verdict: ``ok``; ``note``: works, but something is lost; ``missing``: the main job does not run.
        advice: what to do; empty where there is nothing to do.
    """

    subject: str
    verdict: str
    text: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings")


def run(arguments: argparse.Namespace) -> int:
    require_writable(arguments.json)
    findings = []
    for finding in _findings():
        print(f"{finding.verdict:>7}  {finding.subject}: {finding.text}", flush=True)
        if finding.advice:
            print(f"{'':>7}  -> {finding.advice}", flush=True)
        findings.append(finding)
    runs = all(finding.verdict != "missing" for finding in findings)
    print(
        "\neverything that the main job needs is here"
        if runs
        else "\nthe main job does not run here yet: see above"
    )
    if arguments.json:
        report = {
            "runs": runs,
            "machine": describe_machine(),
            "findings": [asdict(finding) for finding in findings],
        }
        write_json(arguments.json, report)
    return 0 if runs else 1


def _findings() -> Iterator[Finding]:
    yield _machine()
    yield Finding("Python", "ok", sys.version.split()[0])
    for package, name in (("numpy", "NumPy"), ("cv2", "OpenCV")):
        yield _library(package, name)
    yield _torch()
    yield from _engines()
    yield from _models()
    has_ros = importlib.util.find_spec("rclpy") is not None
    yield (
        _ros()
        if has_ros
        else Finding(
            "ROS 2",
            "missing",
            "no rclpy",
            install_ros(),
        )
    )
    yield from _optional_packages()
    if has_ros:
        yield _transport()


def _machine() -> Finding:
    machine = describe_machine()
    return Finding(
        "machine",
        "ok",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}",
    )


def _library(package: str, name: str) -> Finding:
    try:
        version = importlib.import_module(package).__version__
    except ImportError as error:
        return Finding(name, "missing", str(error), see_docs("install.md"))
    return Finding(name, "ok", version)


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("PyTorch", "missing", str(error), see_docs("install.md"))
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("PyTorch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda} on {names}")
    built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    if any(Path("/dev", device).exists() for device in ("nvidia0", "nvhost-gpu")):
        return Finding(
            "PyTorch",
            "note",
            f"{torch.__version__}, {built_for}, does not reach this machine's NVIDIA GPU",
            f"install the PyTorch wheel for this GPU and driver: {see_docs('install.md')}",
        )
    return Finding("PyTorch", "ok", f"{torch.__version__}, {built_for}; no NVIDIA GPU here: the CPU is used")


def _engines() -> Iterator[Finding]:
    for name in ENGINES:
        if importlib.util.find_spec(name) is None:
            yield Finding(f"engine {name}", "note", "not installed", install_engine(name))
        else:
            yield Finding(f"engine {name}", "ok", str(importlib.import_module(name).__version__))


def _models() -> Iterator[Finding]:
    models = available_models()
    if not models:
        advice = (
            f"{canet_command('train --data DATA --name NAME --out RUN')}, then give RUN/model as the model"
        )
        yield Finding("models", "missing", "none", advice)
        return
    yield Finding("models", "ok", ", ".join(models))
    try:
        model = shipped_model("canet", "mobilenet_v2")
    except ModelError:
        model = next(iter(models))
        yield Finding("default model", "note", "none for canet with mobilenet_v2", f"set model:={model}")
    from canet_ros.inference import Segmenter

    try:
        segmenter = Segmenter.load(model)
    except (EngineError, ModelError) as error:
        yield Finding("in use", "missing", str(error))
        return
    engine, (width, height) = segmenter.engine, segmenter.resolution
    yield Finding(
        "in use",
        "ok",
        f"{model} at {width}x{height} on {engine.device}, {engine.name} {engine.precision} ({engine.reason})",
    )


def _ros() -> Finding:
    try:
        import rclpy

        middleware = rclpy.get_rmw_implementation_identifier()
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("ROS 2", "missing", str(error), see_docs("install.md"))
    version = installed_version("rclpy", "ros-rclpy") or "unknown"
    distro = os.environ.get("ROS_DISTRO") or _DISTROS.get(version.split(".")[0], "unknown")
    return Finding("ROS 2", "ok", f"{distro}, rclpy {version}, {middleware}")


def _optional_packages() -> Iterator[Finding]:
    for package, cost in _OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield Finding(package, "note", f"not installed: {cost}")
        else:
            yield Finding(package, "ok", "installed")
    yield _bridge()


def _bridge() -> Finding:
    known = "images are converted without it; it is asked for encodings that ROS learns tomorrow"
    if importlib.util.find_spec("cv_bridge") is None:
        return Finding("cv_bridge", "ok", f"not installed, nor needed: {known}")
    from canet_ros.ros.bridge import bridge_problem

    problem = bridge_problem()
    if problem:
        return Finding("cv_bridge", "note", f"{problem}; {known}", "see docs/install.md: NumPy 1 and 2")
    return Finding("cv_bridge", "ok", f"installed: {known}")


def _transport() -> Finding:
    """Whether camera images cross between processes in the user's environment, and if not, whether they do in ours."""
    from canet_ros.demo.transport_check import ImageStream, TransportError, check_transport

    subject = "camera images between processes"
    stream = ImageStream()
    try:
        mine = check_transport(stream, os.environ)
        text = (
            f"{mine.received} of {mine.sent} arrive ({stream.width}x{stream.height} at {stream.rate_hz:g} Hz)"
        )
        if mine.received_fraction >= ARRIVES:
            return Finding(subject, "ok", f"{text}, after {mine.latency_p50_ms:.0f} ms")
        plain = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
        environment = transport_environment(plain)
        ours = check_transport(stream, environment)
    except (FileNotFoundError, TransportError) as error:
        return Finding(subject, "missing", str(error), see_docs("transport.md"))
    if ours.received_fraction < ARRIVES:
        free_mib = free_shared_memory_bytes() / 2**20
        verdict = "note" if ours.received else "missing"
        text += f"; with our Fast DDS profile {ours.received}; /dev/shm has {free_mib:.0f} MiB free"
        if free_shared_memory_bytes() < ENOUGH_SHARED_MEMORY_BYTES:
            return Finding(subject, verdict, text, "start the container with --shm-size=512m or --ipc=host")
        return Finding(subject, verdict, text, see_docs("transport.md"))
    variable = next(name for name in PROFILE_VARIABLES if name in environment)
    return Finding(
        subject,
        "note",
        f"{text}; with our Fast DDS profile {ours.received}, after {ours.latency_p50_ms:.0f} ms",
        f"in every process that publishes images, your camera driver first: export {variable}={environment[variable]}",
    )
