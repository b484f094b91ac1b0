# SPDX-License-Identifier: Apache-2.0
"""Quality of service of the node's topics (REP 2003), open to ``qos_overrides``; and what does not fit, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

# What a publisher must offer where the default of subscribers asks for more, and what a subscriber can ask instead.
_STRONGER_AND_WEAKER = {
    QoSPolicyKind.RELIABILITY: ("reliable", "best_effort"),
    QoSPolicyKind.DURABILITY: ("transient_local", "volatile"),
}


def camera_qos() -> QoSProfile:
    """Sensor data of which only the newest message matters."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=1)


def camera_info_qos() -> QoSProfile:
    """Sensor data, deep enough to hold what belongs to a frame that is still in work."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, depth=10)


def result_qos() -> QoSProfile:
    """Reliable, so that it fits subscribers of either kind; shallow, because pictures are large."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, depth=2)


def latched_qos() -> QoSProfile:
    """For what whoever comes later must know too."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, depth=1)


def overrides() -> QoSOverridingOptions:
    """Lets ``qos_overrides.<topic>.{publisher,subscription}.<policy>`` change the profile at start."""
    return QoSOverridingOptions(
        (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
    )


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
