# SPDX-License-Identifier: Apache-2.0
"""Finds running segmentation nodes and summarises what they report on /diagnostics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from canet_ros.doctor.finding import Finding
from canet_ros.hints import canet_command, see_docs
from canet_ros.ros.camera_health import CameraState
from canet_ros.ros.fault_log import Fault
from canet_ros.ros.initialization import init_ros, node_problem
from canet_ros.ros.rclpy_compat import RCLError

DISCOVERY_S = 4.0  # Fast DDS announces itself at once, which may be lost, and every 3 s
MAX_DISCOVERY_S = 7.0
_LEVELS = {b"\x00": "OK", b"\x01": "WARN", b"\x02": "ERROR", b"\x03": "STALE"}
_PROGRAMS = ("segmentation_node", "canet_ros.ros.node")


class Status(NamedTuple):
    """A ``diagnostic_msgs/DiagnosticStatus``."""

    level: str
    text: str
    values: dict[str, str]


def graph_findings(all_domains: bool) -> Iterator[Finding]:
    """Check the segmentation nodes of the domain.

    Args:
        all_domains: also list this machine's nodes in other domains or with another middleware.
    """
    context = rclpy.Context()
    init_ros([], context)
    try:
        node = rclpy.create_node(
            f"canet_doctor_{os.getpid()}", context=context, start_parameter_services=False
        )
        try:
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            yield from _check(node, lambda: executor.spin_once(timeout_sec=0.05), all_domains)
        finally:
            # The probe skips the interpreter's shutdown; destroying the last node releases shared memory.
            node.destroy_node()
    except RCLError as error:
        yield Finding("running nodes", "missing", node_problem(error), see_docs("how-to/lost-images.md"))
    finally:
        rclpy.try_shutdown(context=context)


def _check(node: Node, spin: Callable[[], None], all_domains: bool) -> Iterator[Finding]:
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    middleware = rclpy.get_rmw_implementation_identifier()
    place = f"ROS_DOMAIN_ID {domain} with {middleware}"
    others = _nodes_elsewhere(domain, middleware) if all_domains else ""
    others = others or f"{canet_command('doctor --all-domains')} checks other domains too"
    reports: dict[str, Status] = {}

    def store(message: Any) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            reports[status.name] = Status(_LEVELS.get(status.level, "?"), status.message, values)

    node.create_subscription(DiagnosticArray, "/diagnostics", store, 10)
    start_s = time.monotonic()
    names: list[str] = []
    while time.monotonic() < start_s + MAX_DISCOVERY_S:
        spin()
        names = _segmentation_nodes(node, reports)
        complete = names and all(any(report.startswith(f"{n[1:]}: ") for report in reports) for n in names)
        if time.monotonic() > start_s + DISCOVERY_S and complete:
            break
    if not names:
        yield Finding("running nodes", "ok", f"no segmentation node in {place}", others)
    elif all_domains:
        yield Finding("running nodes", "note", f"{len(names)} in {place}", others)
    for name in names:
        prefix = f"{name[1:]}: "
        statuses = {
            report.removeprefix(prefix): status
            for report, status in reports.items()
            if report.startswith(prefix)
        }
        yield _summary(name, statuses, domain)
        yield from _status_findings(statuses)


def _segmentation_nodes(node: Node, reports: Mapping[str, Status]) -> list[str]:
    """Segmentation nodes, recognised by services (lifecycle and ~/enable) or by their status on /diagnostics."""
    services = dict(node.get_service_names_and_types())
    found = {
        name.removesuffix("/enable")
        for name, types in services.items()
        if name.endswith("/enable")
        and "std_srvs/srv/SetBool" in types
        and f"{name.removesuffix('/enable')}/get_state" in services
    }
    for name, status in reports.items():
        if name.endswith(": engine") and "lifecycle_state" in status.values:
            found.add(f"/{name.removesuffix(': engine')}")
    return sorted(found)


def _summary(name: str, statuses: Mapping[str, Status], domain: str) -> Finding:
    """Summary in one sentence: why there are no results, or that there are."""
    subject = f"node {name}"
    if "engine" not in statuses:
        advice = "it hangs, is starting or has just ended: check its log, restart it"
        return Finding(subject, "note", f"{name} does not respond", advice)
    level, message, values = statuses["engine"]
    state = values["lifecycle_state"]
    if state != "active":
        why = f": {message}" if level == "ERROR" else ""
        transitions = ("configure", "activate") if state == "unconfigured" else ("activate",)
        advice = " && ".join(f"ros2 lifecycle set {name} {transition}" for transition in transitions)
        return Finding(subject, "note", f"{name} publishes no results: it is {state}{why}", advice)
    if level == "ERROR":
        return Finding(subject, "note", f"{name} publishes no results: {message}")
    cameras = {part: status for part, status in statuses.items() if part != "engine"}
    silent = [text for _, text, values in cameras.values() if values["state"] == CameraState.NO_IMAGES.value]
    if silent:
        advice = (
            "start the camera driver, or set image_topics to the camera's topic; if both are right, check that the "
            f"driver uses ROS_DOMAIN_ID {domain}, the same middleware and a compatible QoS: "
            f"{see_docs('how-to/lost-images.md')}"
        )
        return Finding(subject, "note", f"{name} receives no images: {'; '.join(silent)}", advice)
    bad = [f"{part}: {text}" for part, (level, text, _) in statuses.items() if level != "OK"]
    if bad:
        return Finding(subject, "note", f"{name} is active, but {'; '.join(bad)}")
    return Finding(subject, "ok", f"{name} is active: {'; '.join(text for _, text, _ in cameras.values())}")


def _status_findings(statuses: Mapping[str, Status]) -> Iterator[Finding]:
    """Every status, and subscribers of results that receive nothing, which does not affect the others."""
    for part, (level, text, values) in statuses.items():
        texts = [] if level == "OK" else [f"{level}: {text}"]
        if values["fault"] == Fault.QOS_INCOMPATIBLE.value and values["last_error"] not in text:
            texts.append(values["last_error"])
        yield Finding(part, "note" if texts else "ok", "; ".join(texts) or text)


def _nodes_elsewhere(own_domain: str, own_middleware: str) -> str:
    """This machine's segmentation nodes in other domains or with another middleware, as text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text(errors="replace").split("\0")
            variables = (process / "environ").read_text(errors="replace").split("\0")
        except OSError:  # ended, or of another user
            continue
        values = dict(variable.partition("=")[::2] for variable in variables)
        domain = values.get("ROS_DOMAIN_ID") or "0"
        middleware = values.get("RMW_IMPLEMENTATION") or own_middleware
        elsewhere = (domain, middleware) != (own_domain, own_middleware)
        if elsewhere and any(Path(word).name in _PROGRAMS for word in arguments[:4]):
            found.append(
                f"process {process.name} is a node in ROS_DOMAIN_ID {domain} with {middleware}: "
                f"ROS_DOMAIN_ID={domain} RMW_IMPLEMENTATION={middleware} {canet_command('doctor --graph-only')}"
            )
    return "; ".join(found)
