# SPDX-License-Identifier: Apache-2.0
"""QoS profiles of the node's topics (REP 2003), ``qos_overrides``, and messages about incompatible QoS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from canet_ros.launching.nearest import did_you_mean
from canet_ros.ros.rclpy_compat import PublisherEventCallbacks, SubscriptionEventCallbacks

# By policy: the value that a publisher must offer to satisfy any subscriber, and the one that any publisher satisfies.
_STRONGER_AND_WEAKER = {
    QoSPolicyKind.RELIABILITY: ("reliable", "best_effort"),
    QoSPolicyKind.DURABILITY: ("transient_local", "volatile"),
}
# Valid values of an override.
_VALUES = {
    QoSPolicyKind.HISTORY: HistoryPolicy,
    QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
    QoSPolicyKind.DURABILITY: DurabilityPolicy,
}
_KINDS = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
_OVERRIDE = re.compile(r"qos_overrides\.(?P<topic>[^.]+)\.(?P<entity>[^.]+)\.(?P<policy>[^.]+)")
_LARGEST_DEPTH = 10_000


def camera_qos() -> QoSProfile:
    """Sensor data; only the newest message matters."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=1)


def video_qos() -> QoSProfile:
    """As camera_qos, but deep, because every packet matters: later ones cannot be decoded without it."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=100)


def camera_info_qos() -> QoSProfile:
    """Sensor data, deep enough for the camera_info of a frame in inference."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=10)


def latched_camera_info_qos() -> QoSProfile:
    """For a latched camera_info, published before the subscription."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, depth=10)


def is_latched(publishers: Iterable[Any]) -> bool:
    """Whether there are publishers, and all are transient local."""
    durabilities = {publisher.qos_profile.durability for publisher in publishers}
    return durabilities == {DurabilityPolicy.TRANSIENT_LOCAL}


def cloud_qos() -> QoSProfile:
    """Sensor data; the cloud with the matching stamp is chosen later."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=5)


def result_qos() -> QoSProfile:
    """Reliable, to match reliable and best-effort subscribers; shallow, because images are large."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, depth=2)


def latched_qos() -> QoSProfile:
    """Latched: late subscribers receive the last message."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, depth=1)


def overrides(latched: bool = False) -> QoSOverridingOptions:
    """Allow ``qos_overrides.<topic>.{publisher,subscription}.<policy>`` at start.

    Args:
        latched: exclude the policies that a latched subscription depends on.
    """
    return QoSOverridingOptions(_KINDS[:2] if latched else _KINDS)


def override_problems(overrides: Mapping[str, Any]) -> list[str]:
    """Invalid names and values among ``qos_overrides...`` parameters, with valid ones; topics are not checked."""
    return [problem for name, value in overrides.items() if (problem := _override_problem(name, value))]


def unknown_override_problem(name: str, declared: Iterable[str]) -> str:
    """Message for an override of a topic that the node does not have, with the closest name."""
    return f"{name}: the node has no such topic in this role{did_you_mean(name, declared)}"


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
        # Humble's enumerations also contain names of older distributions.
        names = [policy.lower() for policy in _VALUES[kind].__members__ if "QOS_POLICY" not in policy]
        values = [policy for policy in names if policy != "unknown"]
        fits = isinstance(value, str) and value.lower() in values
        expected = f"one of {', '.join(values)}"
    return "" if fits else f"{name}: expected {expected}, got {value!r}"


def publisher_events(topic: str, report: Callable[[str], None]) -> PublisherEventCallbacks:
    """Report subscribers of an absolute topic whose requested QoS exceeds the offered QoS."""

    def on_incompatible(event: Any) -> None:
        policy = QoSPolicyKind(event.last_policy_kind)
        stronger, weaker = _STRONGER_AND_WEAKER.get(
            policy, ("that of the subscriber", "that of the publisher")
        )
        report(
            f"a subscriber of {topic} receives nothing: its {policy.name.lower()} is incompatible with this publisher; "
            f"change it to {weaker}, or set qos_overrides.{topic}.publisher.{policy.name.lower()} to {stronger}"
        )

    return PublisherEventCallbacks(incompatible_qos=on_incompatible)


def subscription_events(
    topic: str, report: Callable[[str], None], lost: Callable[[int], None] | None
) -> SubscriptionEventCallbacks:
    """Report publishers of an absolute topic whose offered QoS is below the requested QoS, and lost messages.

    Args:
        lost: called with the number of newly lost messages; None: the middleware does not support it.
    """

    def on_incompatible(event: Any) -> None:
        policy = QoSPolicyKind(event.last_policy_kind)
        stronger, weaker = _STRONGER_AND_WEAKER.get(
            policy, ("that of the subscription", "that of the publisher")
        )
        report(
            f"nothing received from a publisher of {topic}: its {policy.name.lower()} is incompatible with this "
            f"subscription; set qos_overrides.{topic}.subscription.{policy.name.lower()} to {weaker}, or change the "
            f"publisher to {stronger}"
        )

    return SubscriptionEventCallbacks(
        incompatible_qos=on_incompatible,
        message_lost=None if lost is None else lambda event: lost(event.total_count_change),
    )


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )
