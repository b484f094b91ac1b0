# SPDX-License-Identifier: Apache-2.0
"""Finds running segmentation nodes and explains in one sentence each why there are no results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from canet_ros.doctor.finding import Finding
from canet_ros.hints import canet_command, see_docs
from canet_ros.launching.camera_topics import transported_topic
from canet_ros.launching.nearest import nearest
from canet_ros.launching.topic_hints import MESSAGE_TYPES, NO_IMAGES, CameraChoice, topic_hint
from canet_ros.names import TRANSPORTS
from canet_ros.ros.camera_health import TopicState, mixed_problem, qos_problem, topic_state
from canet_ros.ros.initialization import init_ros, node_problem
from canet_ros.ros.rclpy_compat import RCLError

DISCOVERY_S = 4.0  # Fast DDS announces itself at once, which may be lost, and every 3 s
MAX_DISCOVERY_S = 7.0
RESPONSE_TIMEOUT_S = 3.0
_LEVELS = {b"\x00": "OK", b"\x01": "WARN", b"\x02": "ERROR", b"\x03": "STALE"}
_PROGRAMS = ("segmentation_node", "canet_ros.ros.node")


@dataclass
class RunningNode:
    """State of one node.

    Attributes:
        state: its lifecycle state; empty: it sends no diagnostics.
        status: level and message of its statuses on /diagnostics, by the part of the name after ``<node>: ``.
        inputs: entry of image_topics by the topic to which the node subscribes for it.
        results: topics of its image results.
    """

    name: str
    state: str = ""
    status: dict[str, tuple[str, str]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)


def graph_findings(only: str, all_domains: bool) -> Iterator[Finding]:
    """Check the segmentation nodes of the domain.

    Args:
        only: name of the only node to check; empty: all.
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
            yield from _check(node, lambda: executor.spin_once(timeout_sec=0.05), only, all_domains)
        finally:
            # The probe skips the interpreter's shutdown; destroying the last node releases shared memory.
            node.destroy_node()
    except RCLError as error:
        yield Finding("running nodes", "missing", node_problem(error), see_docs("transport.md"))
    finally:
        rclpy.try_shutdown(context=context)


def _check(node: Node, spin: Callable[[], None], only: str, all_domains: bool) -> Iterator[Finding]:
    domain, middleware = here = _domain_and_middleware()
    place = f"ROS_DOMAIN_ID {domain} with {middleware}"
    others = _nodes_elsewhere(here) if all_domains else ""
    others = others or f"{canet_command('doctor --all-domains')} checks other domains too"
    reports: dict[str, Any] = {}

    def store(message: Any) -> None:
        reports.update({status.name: status for status in message.status})

    node.create_subscription(DiagnosticArray, "/diagnostics", store, 10)
    start_s = time.monotonic()
    names: list[str] = []
    while time.monotonic() < start_s + MAX_DISCOVERY_S:
        spin()
        names = _segmentation_nodes(node, reports)
        complete = names and all(any(report.startswith(f"{n[1:]}: ") for report in reports) for n in names)
        if time.monotonic() > start_s + DISCOVERY_S and complete:
            break
    if only:
        wanted = only if only.startswith("/") else f"/{only}"
        if wanted not in names:
            known = nearest(wanted, names) or ", ".join(names)
            hint = f"; running: {known}" if known else ""
            yield Finding(f"node {wanted}", "note", f"no node {wanted} in {place}{hint}", others)
            return
        names = [wanted]
    if not names:
        yield Finding("running nodes", "ok", f"no segmentation node in {place}", others)
    elif all_domains:
        yield Finding("running nodes", "note", f"{len(names)} in {place}", others)
    for name in names:
        running = _running_node(name, reports)
        # An active node has result topics; its services are often discovered first.
        end_s = time.monotonic() + RESPONSE_TIMEOUT_S
        running.results = _results(node, name)
        while not running.results and running.state == "active" and time.monotonic() < end_s:
            spin()
            running.results = _results(node, name)
        yield from _findings(node, running)


def _segmentation_nodes(node: Node, reports: dict[str, Any]) -> list[str]:
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
        if name.endswith(": engine") and any(pair.key == "lifecycle_state" for pair in status.values):
            found.add(f"/{name.removesuffix(': engine')}")
    return sorted(found)


def _running_node(name: str, reports: dict[str, Any]) -> RunningNode:
    found = RunningNode(name)
    for report, status in reports.items():
        if report.startswith(f"{name[1:]}: "):
            part = report.partition(": ")[2]
            found.status[part] = (_LEVELS.get(status.level, "?"), status.message)
            values = {pair.key: pair.value for pair in status.values}
            found.state = values.get("lifecycle_state", found.state)
            if "image_topic" in values:
                found.inputs[values["image_topic"]] = part
    return found


def _findings(node: Node, running: RunningNode) -> Iterator[Finding]:
    name = running.name
    subscribers = {topic: node.count_subscribers(topic) for topic in running.results}
    inputs = {topic: _input_problem(node, running, topic) for topic in running.inputs}
    yield _summary(running, inputs, subscribers)
    for topic, (problem, advice) in inputs.items():
        publishers = node.get_publishers_info_by_topic(topic)
        mixed = mixed_problem([_name(publisher) for publisher in publishers])
        verdict = "note" if problem or mixed else "ok"
        names = ", ".join(_names(publishers))
        yield Finding(topic, verdict, problem or mixed or f"published by {names}", advice)
    if running.results and not any(subscribers.values()):
        yield Finding("results", "ok", f"those of {name} have no subscriber")
    for topic in running.results:
        yield from _result_findings(node, name, topic)
    for status, (level, message) in running.status.items():
        if level != "OK":
            yield Finding(f"/diagnostics, {status}", "note", f"{level}: {message}")


def _summary(
    running: RunningNode, inputs: dict[str, tuple[str, str]], subscribers: dict[str, int]
) -> Finding:
    """Summary in one sentence: why there are no results, or that there are."""
    name, subject = running.name, f"node {running.name}"
    if not running.state:
        advice = "it hangs, is starting or has just ended: check its log, restart it"
        return Finding(subject, "note", f"{name} does not respond", advice)
    level, message = running.status.get("engine", ("", ""))
    if running.state != "active":
        why = f": {message}" if level == "ERROR" else ""
        transitions = ("configure", "activate") if running.state == "unconfigured" else ("activate",)
        advice = " && ".join(f"ros2 lifecycle set {name} {transition}" for transition in transitions)
        return Finding(subject, "note", f"{name} publishes no results: it is {running.state}{why}", advice)
    if level == "ERROR":
        return Finding(subject, "note", f"{name} publishes no results: {message}")
    problems = [(problem, advice) for problem, advice in inputs.values() if problem]
    if problems:
        text = "; ".join(problem for problem, _ in problems)
        return Finding(subject, "note", f"{name} receives no images: {text}", problems[0][1])
    if subscribers and not any(subscribers.values()):
        return Finding(subject, "ok", f"{name} is active and idle: its results have no subscriber")
    bad = [f"{part}: {text}" for part, (level, text) in running.status.items() if level in ("WARN", "ERROR")]
    if bad:
        return Finding(subject, "note", f"{name} is active, but {'; '.join(bad)}")
    rates = [text for part, (_, text) in running.status.items() if part != "engine"]
    return Finding(subject, "ok", f"{name} is active{': ' + '; '.join(rates) if rates else ''}")


def _input_problem(node: Node, running: RunningNode, topic: str) -> tuple[str, str]:
    """Why a camera's images do not reach the node, and the remedy; empty: they do."""
    # The requested QoS is known only while the node subscribes.
    subscriptions = [i for i in node.get_subscriptions_info_by_topic(topic) if _name(i) == running.name]
    types = {info.topic_type for info in subscriptions} or set(MESSAGE_TYPES.values())
    publishers = node.get_publishers_info_by_topic(topic)
    state, why = topic_state(publishers, sorted(types), [info.qos_profile for info in subscriptions])
    names = ", ".join(_names(publishers))
    if state is TopicState.NO_PUBLISHER:
        hint = _hint(node, running, topic)
        return f"no publisher of {topic}{hint}", _camera_advice(topic, hint)
    if state is TopicState.WRONG_TYPE:
        text = f"{names} publishes {why} on {topic}, which {running.name} does not support"
        return text, "set image_topics and image_transport to a topic with images"
    if state is TopicState.QOS_MISMATCH:
        return f"QoS of {names} and {running.name} is incompatible on {topic} ({why})", _qos_advice()
    return "", ""


def _camera_advice(topic: str, hint: str) -> str:
    if hint and hint != NO_IMAGES:
        return f"set image_topics to the camera's topic, or remap the driver's topic to {topic}"
    return (
        f"start the camera driver; if it is running, check that it uses ROS_DOMAIN_ID {_domain_and_middleware()[0]} "
        "and the same middleware, and that the network permits discovery"
    )


def _hint(node: Node, running: RunningNode, topic: str) -> str:
    """Hint at the intended topic, as in the node's log."""
    image = running.inputs[topic]
    transport = next((name for name in TRANSPORTS if transported_topic(image, name) == topic), "raw")
    return topic_hint(
        CameraChoice(image, transport),
        others=[other for other in running.inputs.values() if other != image],
        existing=dict(node.get_topic_names_and_types()),
        own=running.results,
    )


def _result_findings(node: Node, name: str, topic: str) -> Iterator[Finding]:
    offers = node.get_publishers_info_by_topic(topic)
    requests = node.get_subscriptions_info_by_topic(topic)
    for offer in offers:
        for request in requests:
            reason = qos_problem(offer.qos_profile, request.qos_profile)
            if reason and _name(offer) == name:
                text = f"{_name(request)} receives nothing from {name}: QoS is incompatible ({reason})"
                yield Finding(topic, "note", text, _qos_advice())
    if requests:
        yield Finding(topic, "ok", f"to {', '.join(_names(requests))}")
    rivals = [rival for rival in _names(offers) if rival != name]
    if rivals:
        text = f"also published by {', '.join(rivals)}"
        yield Finding(topic, "note", text, "give each node its own namespace")


def _qos_advice() -> str:
    return f"change the QoS of one of them with qos_overrides; {see_docs('transport.md')}"


def _results(node: Node, name: str) -> list[str]:
    namespace, _, base = name.rpartition("/")
    try:
        published = node.get_publisher_names_and_types_by_node(base, namespace or "/")
    except RuntimeError:  # the node has ended
        return []
    return sorted(topic for topic, types in published if set(types) & set(MESSAGE_TYPES.values()))


def _domain_and_middleware() -> tuple[str, str]:
    return os.environ.get("ROS_DOMAIN_ID") or "0", rclpy.get_rmw_implementation_identifier()


def _nodes_elsewhere(here: tuple[str, str]) -> str:
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
        middleware = values.get("RMW_IMPLEMENTATION") or here[1]
        if (domain, middleware) != here and any(Path(word).name in _PROGRAMS for word in arguments[:4]):
            found.append(
                f"process {process.name} is one in ROS_DOMAIN_ID {domain} with {middleware}: "
                f"ROS_DOMAIN_ID={domain} RMW_IMPLEMENTATION={middleware} {canet_command('doctor --graph-only')}"
            )
    return "; ".join(found)


def _name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _names(infos: Iterable[Any]) -> list[str]:
    return sorted({_name(info) for info in infos})
