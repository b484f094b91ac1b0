# SPDX-License-Identifier: Apache-2.0
"""What this package takes from rclpy and CPython that is not public, or differs between distributions."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

__all__ = [
    "GIVES_MESSAGE_INFO",
    "PublisherEventCallbacks",
    "RCLError",
    "SubscriptionEventCallbacks",
    "UnsupportedEventTypeError",
    "destroy_state_machine",
    "given_parameters",
    "run_exit_functions",
]

# Whether a subscription's callback may take the message's number and publisher too; not on Humble.
GIVES_MESSAGE_INFO = hasattr(Subscription, "CallbackType")


def given_parameters(node: Node) -> Mapping[str, Any]:
    """Parameters given at start, by files, launch or ``-p``, declared or not, by their names."""
    given: Mapping[str, Any] = getattr(node, "_parameter_overrides", {})
    return given


def destroy_state_machine(node: LifecycleNode) -> None:
    """Let go of what rclpy forgets when a lifecycle node is destroyed, and with it of the middleware's shared memory.

    It holds the node, so that a process that does not end by Python's own end would leave a segment in /dev/shm behind.
    """
    node._state_machine.destroy_when_not_in_use()


def run_exit_functions() -> None:
    """What others have registered with ``atexit``, without the interpreter's own end."""
    atexit._run_exitfuncs()
