# SPDX-License-Identifier: Apache-2.0
"""Quality of service of the node's topics (REP 2003), open to ``qos_overrides``; and what does not fit, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from canet_ros.launching.nearest import nearest
from canet_ros.ros.rclpy_compat import PublisherEventCallbacks, SubscriptionEventCallbacks

# What a publisher must offer where the default of subscribers asks for more, and what a subscriber can ask instead.
_STRONGER_AND_WEAKER = {
    QoSPolicyKind.RELIABILITY: ("reliable", "best_effort"),
    QoSPolicyKind.DURABILITY: ("transient_local", "volatile"),
}
# What the values of an override may be called.
_VALUES = {
    QoSPolicyKind.HISTORY: HistoryPolicy,
    QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
    QoSPolicyKind.DURABILITY: DurabilityPolicy,
}
_KINDS = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
_OVERRIDE = re.compile(r"qos_overrides\.(?P<topic>[^.]+)\.(?P<entity>[^.]+)\.(?P<policy>[^.]+)")
_LARGEST_DEPTH = 10_000


def camera_qos() -> QoSProfile:
    """Sensor data of which only the newest message matters."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=1)


def camera_info_qos() -> QoSProfile:
    """Sensor data, deep enough to hold what belongs to a frame that is still in work."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=10)


def latched_camera_info_qos() -> QoSProfile:
    """For a camera_info that was published once, perhaps before the subscription."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, depth=10)


def is_latched(publishers: Iterable[Any]) -> bool:
    """Whether there are publishers and each of them keeps its last message for later subscribers."""
    durabilities = {publisher.qos_profile.durability for publisher in publishers}
    return durabilities == {DurabilityPolicy.TRANSIENT_LOCAL}


def cloud_qos() -> QoSProfile:
    """Sensor data; of several clouds that have come, the one whose stamp fits is looked for later."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=5)


def result_qos() -> QoSProfile:
    """Reliable, so that it fits subscribers of either kind; shallow, because pictures are large."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, depth=2)


def latched_qos() -> QoSProfile:
    """For what whoever comes later must know too."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, depth=1)


def overrides(latched: bool = False) -> QoSOverridingOptions:
    """Lets ``qos_overrides.<topic>.{publisher,subscription}.<policy>`` change the profile at start.

    Args:
        latched: leave out the policies that a latched subscription needs as they are.
    """
    return QoSOverridingOptions(_KINDS[:2] if latched else _KINDS)


def override_problems(overrides: Mapping[str, Any]) -> list[str]:
    """What is wrong with parameters named ``qos_overrides...``, and what would be right; topics are not checked."""
    return [problem for name, value in overrides.items() if (problem := _override_problem(name, value))]


def unknown_override_problem(name: str, declared: Iterable[str]) -> str:
    """That nothing here reads such an override, with the name that may be meant."""
    near = nearest(name, declared)
    return f"{name}: the node has no such topic in this role" + (f"; did you mean {near}?" if near else "")


def _override_problem(name: str, value: Any) -> str:
    match = _OVERRIDE.fullmatch(name)
    if match is None:
        return f"{name}: expected qos_overrides.<topic>.<publisher or subscription>.<policy>"
    if match["entity"].partition("_")[0] not in ("publisher", "subscription"):
        return f"{name}: expected publisher or subscription, got {match['entity']!r}"
    policies = {kind.name.lower(): kind for kind in _KINDS}
    kind = policies.get(match["policy"])
    if kind is None:
        return f"{name}: expected one of {', '.join(policies)}, got {match['policy']!r}"
    if kind == QoSPolicyKind.DEPTH:
        fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST_DEPTH
        expected = f"an integer from 1 to {_LARGEST_DEPTH}"
    else:
        # Humble's enumerations hold names of older distributions too, in the style of those.
        names = [policy.lower() for policy in _VALUES[kind].__members__ if "QOS_POLICY" not in policy]
        values = [policy for policy in names if policy != "unknown"]
        fits = isinstance(value, str) and value.lower() in values
        expected = f"one of {', '.join(values)}"
    return "" if fits else f"{name}: expected {expected}, got {value!r}"


def publisher_events(topic: str, report: Callable[[str], None]) -> PublisherEventCallbacks:
    """Reports subscribers to an absolute topic that ask for more than its publisher offers."""

    def on_incompatible(event: Any) -> None:
        policy = QoSPolicyKind(event.last_policy_kind)
        stronger, weaker = _STRONGER_AND_WEAKER.get(policy, ("that of the subscriber", "ours"))
        report(
            f"a subscriber to {topic} gets nothing, because it asks for a {policy.name.lower()} that is not offered: "
            f"let it ask for {weaker}, or set qos_overrides.{topic}.publisher.{policy.name.lower()} to {stronger}"
        )

    return PublisherEventCallbacks(incompatible_qos=on_incompatible)


def subscription_events(
    topic: str, report: Callable[[str], None], lost: Callable[[int], None] | None
) -> SubscriptionEventCallbacks:
    """Reports publishers of an absolute topic that offer less than its subscription asks, and lost messages.

    Args:
        lost: takes the number of messages lost since the last call; None where the middleware cannot tell.
    """

    def on_incompatible(event: Any) -> None:
        policy = QoSPolicyKind(event.last_policy_kind)
        stronger, weaker = _STRONGER_AND_WEAKER.get(
            policy, ("that of the subscription", "that of the publisher")
        )
        report(
            f"nothing comes from a publisher of {topic}, because it offers less {policy.name.lower()} than is asked: "
            f"set qos_overrides.{topic}.subscription.{policy.name.lower()} to {weaker}, or let it offer {stronger}"
        )

    return SubscriptionEventCallbacks(
        incompatible_qos=on_incompatible,
        message_lost=None if lost is None else lambda event: lost(event.total_count_change),
    )


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )
