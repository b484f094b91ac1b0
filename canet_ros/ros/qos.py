# SPDX-License-Identifier: Apache-2.0
"""Publishers and subscriptions with the QoS of REP 2003, ``qos_overrides``, and messages about incompatible QoS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from canet_ros.ros.rclpy_compat import (
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
)

# By policy: the value that a publisher must offer to satisfy any subscriber, and the one that any publisher satisfies.
_STRONGER_AND_WEAKER = {
    QoSPolicyKind.RELIABILITY: ("reliable", "best_effort"),
    QoSPolicyKind.DURABILITY: ("transient_local", "volatile"),
}
_KINDS = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


def is_latched(publishers: Iterable[Any]) -> bool:
    """Whether there are publishers, and all are transient local."""
    durabilities = {publisher.qos_profile.durability for publisher in publishers}
    return durabilities == {DurabilityPolicy.TRANSIENT_LOCAL}


def create_publisher(
    node: Node,
    message_type: Any,
    topic: str,
    report: Callable[[str], None],
    latched: bool = False,
) -> Any:
    """A publisher of results: reliable, to match all subscribers, and shallow, because images are large.

    Args:
        topic: absolute.
        report: called with a message about a subscriber whose requested QoS exceeds the offered QoS.
        latched: late subscribers receive the last message.
    """

    def on_incompatible(event: Any) -> None:
        policy, stronger, weaker = _mismatch(event)
        report(
            f"a subscriber of {topic} receives nothing: its {policy} is incompatible with this publisher; "
            f"change it to {weaker}, or set qos_overrides.{topic}.publisher.{policy} to {stronger}"
        )

    return node.create_publisher(
        message_type,
        topic,
        _profile(ReliabilityPolicy.RELIABLE, latched, depth=1 if latched else 2),
        event_callbacks=PublisherEventCallbacks(incompatible_qos=on_incompatible),
        qos_overriding_options=QoSOverridingOptions(_KINDS),
    )


def create_subscription(
    node: Node,
    message_type: Any,
    topic: str,
    callback: Callable[..., None],
    depth: int,
    report: Callable[[str], None],
    latched: bool = False,
    on_lost: Callable[[int], None] | None = None,
) -> Any:
    """A subscription to sensor data: best effort, to match all publishers.

    Args:
        topic: absolute.
        report: called with a message about a publisher whose offered QoS is below the requested QoS.
        latched: also receive a message published before; requires transient local publishers.
        on_lost: called with the number of newly lost messages, if the middleware supports it.
    """

    def on_incompatible(event: Any) -> None:
        policy, stronger, weaker = _mismatch(event)
        report(
            f"nothing received from a publisher of {topic}: its {policy} is incompatible with this subscription; "
            f"set qos_overrides.{topic}.subscription.{policy} to {weaker}, or change the publisher to {stronger}"
        )

    def create(message_lost: Callable[[Any], None] | None) -> Any:
        reliability = ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT
        return node.create_subscription(
            message_type,
            topic,
            callback,
            _profile(reliability, latched, depth),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=on_incompatible, message_lost=message_lost
            ),
            # A latched subscription depends on the other policies.
            qos_overriding_options=QoSOverridingOptions(_KINDS[:2] if latched else _KINDS),
        )

    try:
        return create(None if on_lost is None else lambda event: on_lost(event.total_count_change))
    except UnsupportedEventTypeError:
        return create(None)


def _mismatch(event: Any) -> tuple[str, str, str]:
    """The incompatible policy, and the values that a publisher must offer and a subscription request."""
    policy = QoSPolicyKind(event.last_policy_kind)
    return policy.name.lower(), *_STRONGER_AND_WEAKER.get(
        policy, ("that of the subscriber", "that of the publisher")
    )


def _profile(reliability: ReliabilityPolicy, latched: bool, depth: int) -> QoSProfile:
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )
