# SPDX-License-Identifier: Apache-2.0
"""QoS profiles of the node's topics (REP 2003), ``qos_overrides``, and messages about incompatible QoS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
_KINDS = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


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


def unknown_override_problem(name: str, declared: Iterable[str]) -> str:
    """Message for an override of a topic that the node does not have, with the closest name."""
    return f"{name}: the node has no such topic in this role{did_you_mean(name, declared)}"


def publisher_events(topic: str, report: Callable[[str], None]) -> PublisherEventCallbacks:
    """Report subscribers of an absolute topic whose requested QoS exceeds the offered QoS."""

    def on_incompatible(event: Any) -> None:
        policy, stronger, weaker = _mismatch(event)
        report(
            f"a subscriber of {topic} receives nothing: its {policy} is incompatible with this publisher; "
            f"change it to {weaker}, or set qos_overrides.{topic}.publisher.{policy} to {stronger}"
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
        policy, stronger, weaker = _mismatch(event)
        report(
            f"nothing received from a publisher of {topic}: its {policy} is incompatible with this subscription; "
            f"set qos_overrides.{topic}.subscription.{policy} to {weaker}, or change the publisher to {stronger}"
        )

    return SubscriptionEventCallbacks(
        incompatible_qos=on_incompatible,
        message_lost=None if lost is None else lambda event: lost(event.total_count_change),
    )


def _mismatch(event: Any) -> tuple[str, str, str]:
    """The incompatible policy, and the values that a publisher must offer and a subscription request."""
    policy = QoSPolicyKind(event.last_policy_kind)
    return policy.name.lower(), *_STRONGER_AND_WEAKER.get(
        policy, ("that of the subscriber", "that of the publisher")
    )


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )
