# SPDX-License-Identifier: Apache-2.0
"""Probes of the machine. ``python -m canet_ros.doctor.probes NAME...`` runs one and prints its findings.

Imports at the top are limited to modules that cannot be broken.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from canet_ros.doctor.finding import Finding, emit
from canet_ros.hints import canet_command, engine_module, install_engine, see_docs
from canet_ros.launching.network import DISCOVERY_VARIABLES, environment_problems
from canet_ros.launching.transport import (
    CYCLONEDDS_VARIABLE,
    ENOUGH_SHARED_MEMORY_BYTES,
    PROFILE_VARIABLES,
    free_shared_memory_bytes,
    shared_memory_problem,
    transport_environment,
)
from canet_ros.machine import installed_version

MIN_RECEIVED_FRACTION = 0.99  # of the images of a stream
# By major version of rclpy, if ROS_DISTRO is not set.
_DISTROS = {"3": "humble", "7": "jazzy", "9": "kilted"}


def library(package: str, name: str) -> Iterator[Finding]:
    yield Finding(name, "ok", str(importlib.import_module(package).__version__))


def optional(package: str) -> Iterator[Finding]:
    part = {"vision_msgs": "vision_msgs.msg", "bondpy": "bondpy.bondpy"}.get(package, package)
    importlib.import_module(part)
    yield Finding(package, "ok", "installed")


def torch() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Finding("PyTorch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda} on {names}")
        return
    built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    if any(Path("/dev", device).exists() for device in ("nvidia0", "nvhost-gpu")):
        yield Finding(
            "PyTorch",
            "note",
            f"{torch.__version__}, {built_for}, cannot use this machine's NVIDIA GPU",
            f"install the PyTorch wheel for this GPU and driver: {see_docs('how-to/install.md')}",
        )
        return
    yield Finding("PyTorch", "ok", f"{torch.__version__}, {built_for}; no NVIDIA GPU found, using the CPU")


def engine(name: str) -> Iterator[Finding]:
    module = engine_module(name)
    if importlib.util.find_spec(module) is None:
        yield Finding(f"engine {name}", "note", "not installed", install_engine(name))
    else:
        yield Finding(f"engine {name}", "ok", str(importlib.import_module(module).__version__))


def models() -> Iterator[Finding]:
    from canet_ros.model.model_folder import ModelError, available_models, shipped_model

    names = available_models()
    if not names:
        train = canet_command("train --data DATA --name NAME --out RUN")
        yield Finding("models", "missing", "none", f"{train}, then use RUN/model as the model")
        return
    yield Finding("models", "ok", ", ".join(names))
    try:
        model = shipped_model("canet", "mobilenet_v2")
    except ModelError:
        model = next(iter(names))
        yield Finding("default model", "note", "none for canet with mobilenet_v2", f"set model:={model}")
    from canet_ros.pipeline.segmenter import Segmenter

    segmenter = Segmenter.load(model)
    used, (width, height) = segmenter.engine, segmenter.resolution
    yield Finding(
        "in use",
        "ok",
        f"{model} at {width}x{height} on {used.device}, {used.name} {used.precision} ({used.reason})",
    )
    for reason in getattr(used, "fallback_reasons", ()):
        yield Finding("fallback reason", "note", reason)


def ros() -> Iterator[Finding]:
    problem = shared_memory_problem()
    if problem:
        what, _, advice = problem.partition(": ")
        yield Finding("shared memory", "missing", what, advice)
    import rclpy

    from canet_ros.ros.initialization import log_file_problem

    middleware = rclpy.get_rmw_implementation_identifier()
    version = installed_version("rclpy", "ros-rclpy") or "unknown"
    distro = os.environ.get("ROS_DISTRO") or _DISTROS.get(version.split(".")[0], "unknown")
    yield Finding("ROS 2", "ok", f"{distro}, rclpy {version}, {middleware}")
    without_log = log_file_problem(os.environ)
    if without_log:
        what, _, advice = without_log.partition("; ")
        yield Finding("log files", "note", f"no log file can be written: {what}", advice)


def transport() -> Iterator[Finding]:
    """Check image transport between processes in the user's environment and, if it fails, with our settings."""
    from canet_ros.demo.transport_check import COUNT, HEIGHT, RATE_HZ, WIDTH, TransportError, check_transport

    subject = "camera images between processes"
    try:
        mine = check_transport(os.environ)
        text = f"{mine.received} of {COUNT} received ({WIDTH}x{HEIGHT} at {RATE_HZ:g} Hz)"
        if mine.received_fraction >= MIN_RECEIVED_FRACTION:
            yield Finding(subject, "ok", f"{text}, latency {mine.latency_ms:.0f} ms")
            return
        plain = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
        environment = transport_environment(plain)
        variable = next((name for name in PROFILE_VARIABLES if name in environment), "")
        if not variable:
            yield Finding(subject, "note", text, see_docs("how-to/lost-images.md"))
            return
        ours = check_transport(environment)
    except (FileNotFoundError, TransportError) as error:
        chosen = [f"{name}={os.environ[name]}" for name in DISCOVERY_VARIABLES if os.environ.get(name)]
        text = f"{error}; with {', '.join(chosen)}" if chosen else str(error)
        yield Finding(subject, "missing", text, see_docs("how-to/lost-images.md"))
        return
    cyclone = variable == CYCLONEDDS_VARIABLE
    text += f"; {ours.received} with our settings for {'Cyclone' if cyclone else 'Fast'} DDS"
    verdict, advice = "note", see_docs("how-to/lost-images.md")
    if ours.received > mine.received:  # not all need arrive on a busy machine
        text += f", latency {ours.latency_ms:.0f} ms"
        processes = "receives images" if cyclone else "publishes images, your camera driver first"
        setting = f"{variable}={shlex.quote(environment[variable])}"
        advice = f"in every process that {processes}: export {setting}"
    if not ours.received:
        verdict = "missing"
    elif cyclone and ours.received_fraction < MIN_RECEIVED_FRACTION:
        advice = f"sudo sysctl -w net.core.rmem_max=16777216; {advice}"
    if not cyclone and free_shared_memory_bytes() < ENOUGH_SHARED_MEMORY_BYTES:
        text += f"; /dev/shm has {free_shared_memory_bytes() / 2**20:.0f} MiB free"
        advice += "; start the container with --shm-size=512m or --ipc=host"
    yield Finding(subject, verdict, text, advice)


def graph(all_domains: str = "") -> Iterator[Finding]:
    for problem in environment_problems():
        yield Finding("ROS environment", "note", problem)
    from canet_ros.doctor.graph import graph_findings

    yield from graph_findings(bool(all_domains))


PROBES = {
    probe.__name__: probe for probe in (library, optional, torch, engine, models, ros, transport, graph)
}


def main() -> None:
    """Run one probe; exit with 1 if it raised, with the error as the last line on stderr."""
    status = 0
    try:
        for finding in PROBES[sys.argv[1]](*sys.argv[2:]):
            emit(finding)
    except BaseException as error:  # SystemExit too: some libraries exit when imported
        text = " ".join(str(error).split())
        print(
            f"{type(error).__name__}: {text}" if text else type(error).__name__, file=sys.stderr, flush=True
        )
        status = 1
    # Skip the interpreter's shutdown, where threads and destructors of a broken library could hang.
    os._exit(status)


if __name__ == "__main__":
    main()
