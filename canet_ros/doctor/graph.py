# SPDX-License-Identifier: Apache-2.0
"""Finds running segmentation nodes and explains in one sentence each why there are no results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from canet_ros.doctor.finding import Finding
from canet_ros.hints import canet_command, see_docs
from canet_ros.launching.nearest import nearest
from canet_ros.launching.topic_hints import MESSAGE_TYPES, NO_IMAGES, CameraChoice, topic_hint
from canet_ros.ros.camera_health import TopicState, mixed_problem, qos_problem, topic_state
from canet_ros.ros.initialization import init_ros, node_problem
from canet_ros.ros.rclpy_compat import RCLError

DISCOVERY_S = 4.0  # Fast DDS announces itself at once, which may be lost, and every 3 s
MAX_DISCOVERY_S = 7.0
RESPONSE_TIMEOUT_S = 3.0
_MISMATCHES = (TopicState.WRONG_TYPE, TopicState.QOS_MISMATCH)
_LEVELS = {b"\x00": "OK", b"\x01": "WARN", b"\x02": "ERROR", b"\x03": "STALE"}
_UNRESPONSIVE_ADVICE = "it hangs, is starting or has just ended: check its log, restart it"
_PROGRAMS = ("segmentation_node", "canet_ros.ros.node")


@dataclass
class RunningNode:
    """State of one node.

    Attributes:
        status: level and message of its statuses on /diagnostics, by the part of the name after ``<node>: ``.
        inputs: image topics of its cameras.
    """

    name: str
    state: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    status: dict[str, tuple[str, str]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)


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
    others = (
        _nodes_elsewhere()
        if all_domains
        else f"{canet_command('doctor --all-domains')} checks other domains too"
    )
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
            yield Finding(f"node {wanted}", "note", f"no node {wanted} in {_here()}{hint}", others)
            return
        names = [wanted]
    if not names and (silent := _silent_processes()):
        yield Finding(
            "running nodes",
            "note",
            f"process {_list(silent)} is a segmentation node in {_here()} that does not respond",
            _UNRESPONSIVE_ADVICE,
        )
        return
    if not names:
        yield Finding("running nodes", "ok", f"no segmentation node in {_here()}", others)
        return
    if all_domains and others:
        yield Finding("running nodes", "note", f"{len(names)} in {_here()}", others)
    for name in names:
        yield from _findings(node, spin, _running_node(node, spin, name, reports))


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


def _running_node(node: Node, spin: Callable[[], None], name: str, reports: dict[str, Any]) -> RunningNode:
    found = RunningNode(name)
    state = _call(node, spin, GetState, f"{name}/get_state", GetState.Request())
    found.state = state.current_state.label if state else ""
    wanted = ["image_topics", "image_transport", "results_name", "use_sim_time"]
    request = GetParameters.Request(names=wanted)
    answer = _call(node, spin, GetParameters, f"{name}/get_parameters", request) if state else None
    if answer and len(answer.values) == len(wanted):
        found.parameters = dict(zip(wanted, map(parameter_value_to_python, answer.values)))
    for report, status in reports.items():
        if report.startswith(f"{name[1:]}: "):
            found.status[report.partition(": ")[2]] = (_LEVELS.get(status.level, "?"), status.message)
            found.inputs += [pair.value for pair in status.values if pair.key == "image_topic"]
    if not found.inputs:
        compressed = found.parameters.get("image_transport") == "compressed"
        for topic in found.parameters.get("image_topics") or []:
            absolute = _absolute(topic, name)
            found.inputs.append(f"{absolute}/compressed" if compressed else absolute)
    return found


def _call(node: Node, spin: Callable[[], None], kind: Any, name: str, request: Any) -> Any:
    """Response of a service; None: none. Calls twice, because a response can be lost during discovery."""
    client = node.create_client(kind, name)
    try:
        for _ in range(2):
            end_s = time.monotonic() + RESPONSE_TIMEOUT_S / 2
            while not client.service_is_ready() and time.monotonic() < end_s:
                spin()
            if not client.service_is_ready():
                continue
            future = client.call_async(request)
            end_s = time.monotonic() + RESPONSE_TIMEOUT_S
            while not future.done() and time.monotonic() < end_s:
                spin()
            if future.done():
                return future.result()
        return None
    finally:
        node.destroy_client(client)


def _findings(node: Node, spin: Callable[[], None], running: RunningNode) -> Iterator[Finding]:
    # An active node has result topics; its services are often discovered first.
    end_s = time.monotonic() + RESPONSE_TIMEOUT_S
    while not (results := _results(node, running)) and running.state == "active" and time.monotonic() < end_s:
        spin()
    subscribers = {topic: node.count_subscribers(topic) for topic in results}
    yield _summary(node, running, subscribers)
    for topic in running.inputs:
        yield from _input_findings(node, running, topic)
    yield from _result_mismatches(node, running.name, results)
    if results and not any(subscribers.values()):
        yield Finding("results", "ok", f"those of {running.name} have no subscriber")
    for topic, number in subscribers.items():
        if number:
            yield Finding(topic, "ok", f"to {_list(_names(node.get_subscriptions_info_by_topic(topic)))}")
        rivals = [n for n in _names(node.get_publishers_info_by_topic(topic)) if n != running.name]
        if rivals:
            yield Finding(
                topic, "note", f"also published by {_list(rivals)}", "give each node its own namespace"
            )
    for name, (level, message) in running.status.items():
        if level != "OK":
            yield Finding(f"/diagnostics, {name}", "note", f"{level}: {message}")
    if not running.status and running.state:
        yield Finding("/diagnostics", "note", f"no status received from {running.name}")
    if running.parameters.get("use_sim_time") and not node.count_publishers("/clock"):
        yield Finding(
            "/clock",
            "note",
            f"/clock has no publisher: ROS time of {running.name} does not advance (use_sim_time is set)",
            "start the simulation or ros2 bag play --clock, or set use_sim_time to false",
        )


def _summary(node: Node, running: RunningNode, subscribers: dict[str, int]) -> Finding:
    """Summary in one sentence: why there are no results, or that there are."""
    name, subject = running.name, f"node {running.name}"
    engine_level, engine_message = running.status.get("engine", ("", ""))
    if not running.state:
        return Finding(
            subject,
            "note",
            f"{name} does not respond",
            _UNRESPONSIVE_ADVICE,
        )
    if running.state != "active":
        why = f": {engine_message}" if engine_level == "ERROR" else ""
        transitions = ("configure", "activate") if running.state == "unconfigured" else ("activate",)
        advice = " && ".join(f"ros2 lifecycle set {name} {transition}" for transition in transitions)
        return Finding(subject, "note", f"{name} publishes no results: it is {running.state}{why}", advice)
    if engine_level == "ERROR":
        return Finding(subject, "note", f"{name} publishes no results: {engine_message}")
    found = {topic: _input_state(node, name, topic) for topic in running.inputs}
    missing = [topic for topic, (state, _) in found.items() if state is TopicState.NO_PUBLISHER]
    if missing:
        hint = _hint(node, running, missing[0])
        text = f"{name} receives no images: no publisher of {', '.join(missing)}{hint}"
        return Finding(subject, "note", text, _camera_advice(missing[0], hint))
    mismatches = [
        _mismatch_text(node, topic, name, state, why)
        for topic, (state, why) in found.items()
        if state in _MISMATCHES
    ]
    if mismatches:
        return Finding(subject, "note", f"{name} receives no images: {mismatches[0]}", _qos_advice())
    if subscribers and not any(subscribers.values()):
        return Finding(
            subject,
            "ok",
            f"{name} is active and idle: its results have no subscriber",
        )
    bad = [
        f"{camera}: {text}" for camera, (level, text) in running.status.items() if level in ("WARN", "ERROR")
    ]
    if bad:
        return Finding(subject, "note", f"{name} is active, but {'; '.join(bad)}")
    rates = [text for camera, (_, text) in running.status.items() if camera != "engine"]
    return Finding(subject, "ok", f"{name} is active{': ' + '; '.join(rates) if rates else ''}")


def _camera_advice(topic: str, hint: str) -> str:
    if hint and hint != NO_IMAGES:
        return f"set image_topics to the camera's topic, or remap the driver's topic to {topic}"
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    return (
        f"start the camera driver; if it is running, check that it uses ROS_DOMAIN_ID {domain} and the same "
        "middleware, and that the network permits discovery"
    )


def _hint(node: Node, running: RunningNode, topic: str) -> str:
    """Hint at the intended topic, as in the node's log."""
    transport = running.parameters.get("image_transport") or "raw"
    suffix = "" if transport == "raw" else f"/{transport}"
    return topic_hint(
        CameraChoice(topic.removesuffix(suffix), transport),
        others=[other.removesuffix(suffix) for other in running.inputs if other != topic],
        existing=dict(node.get_topic_names_and_types()),
        own=_results(node, running),
    )


def _input_findings(node: Node, running: RunningNode, topic: str) -> Iterator[Finding]:
    publishers = node.get_publishers_info_by_topic(topic)
    state, why = _input_state(node, running.name, topic)
    names = _names(publishers)
    mixed = mixed_problem([_name(info) for info in publishers])
    if state is TopicState.NO_PUBLISHER:
        yield Finding(topic, "note", f"no publisher{_hint(node, running, topic)}")
    elif state in _MISMATCHES:
        yield Finding(topic, "note", _mismatch_text(node, topic, running.name, state, why), _qos_advice())
    elif mixed:
        yield Finding(topic, "note", mixed)
    else:
        yield Finding(topic, "ok", f"published by {_list(names)}")


def _input_state(node: Node, name: str, topic: str) -> tuple[TopicState, str]:
    """State of a node's image topic; the requested QoS is known only while the node subscribes."""
    subscriptions = [i for i in node.get_subscriptions_info_by_topic(topic) if _name(i) == name]
    types = {info.topic_type for info in subscriptions} or set(MESSAGE_TYPES.values())
    publishers = node.get_publishers_info_by_topic(topic)
    return topic_state(publishers, sorted(types), [info.qos_profile for info in subscriptions])


def _mismatch_text(node: Node, topic: str, name: str, state: TopicState, why: str) -> str:
    publishers = _list(_names(node.get_publishers_info_by_topic(topic)))
    if state is TopicState.WRONG_TYPE:
        return f"{publishers} publishes {why} on {topic}, which {name} does not support"
    return f"QoS of {publishers} and {name} is incompatible on {topic} ({why})"


def _result_mismatches(node: Node, name: str, results: Sequence[str]) -> Iterator[Finding]:
    for topic in results:
        for offer in node.get_publishers_info_by_topic(topic):
            for request in node.get_subscriptions_info_by_topic(topic):
                reason = qos_problem(offer.qos_profile, request.qos_profile)
                if reason and _name(offer) == name:
                    text = f"{_name(request)} receives nothing from {name}: QoS is incompatible ({reason})"
                    yield Finding(topic, "note", text, _qos_advice())


def _qos_advice() -> str:
    return f"change the QoS of one of them with qos_overrides; {see_docs('transport.md')}"


def _results(node: Node, running: RunningNode) -> list[str]:
    """Topics of the node's image results."""
    namespace, _, base = running.name.rpartition("/")
    try:
        published = node.get_publisher_names_and_types_by_node(base, namespace or "/")
    except RuntimeError:  # the node has ended
        return []
    return sorted(topic for topic, types in published if set(types) & set(MESSAGE_TYPES.values()))


def _here() -> str:
    return "ROS_DOMAIN_ID {} with {}".format(*_domain_and_middleware())


def _nodes_elsewhere() -> str:
    """Segmentation nodes of this machine in other domains or with another middleware, as text."""
    return "; ".join(
        f"process {pid} is one in ROS_DOMAIN_ID {domain} with {middleware}: "
        f"ROS_DOMAIN_ID={domain} RMW_IMPLEMENTATION={middleware} {canet_command('doctor --graph-only')}"
        for pid, domain, middleware in _processes()
        if (domain, middleware) != _domain_and_middleware()
    )


def _silent_processes() -> list[str]:
    """Process ids of this machine's segmentation nodes in our domain."""
    return [
        pid for pid, domain, middleware in _processes() if (domain, middleware) == _domain_and_middleware()
    ]


def _domain_and_middleware() -> tuple[str, str]:
    return os.environ.get("ROS_DOMAIN_ID") or "0", rclpy.get_rmw_implementation_identifier()


def _processes() -> list[tuple[str, str, str]]:
    """Process id, domain and middleware of this machine's segmentation nodes that this user may inspect."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if not any(Path(argument).name in _PROGRAMS for argument in arguments[:4]):
                continue
            pairs = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended, or of another user
            continue
        variables = dict(pair.partition("=")[::2] for pair in pairs)
        domain = variables.get("ROS_DOMAIN_ID") or "0"
        found.append(
            (process.name, domain, variables.get("RMW_IMPLEMENTATION") or _domain_and_middleware()[1])
        )
    return found


def _absolute(topic: str, node: str) -> str:
    if topic.startswith("~"):
        return node + topic[1:]
    return topic if topic.startswith("/") else f"{node.rpartition('/')[0]}/{topic}"


def _name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _names(infos: Sequence[Any]) -> list[str]:
    return sorted({_name(info) for info in infos})


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
