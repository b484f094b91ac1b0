# SPDX-License-Identifier: Apache-2.0
"""Private parts of rclpy and CPython, and differences between ROS distributions."""

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

# Whether callbacks of subscriptions can receive the sequence number and publisher of a message; not on Humble.
GIVES_MESSAGE_INFO = hasattr(Subscription, "CallbackType")


def given_parameters(node: Node) -> Mapping[str, Any]:
    """Parameters given at start (file, launch or ``-p``) by name, declared or not."""
    given: Mapping[str, Any] = getattr(node, "_parameter_overrides", {})
    return given


def destroy_state_machine(node: LifecycleNode) -> None:
    """Destroy the state machine, which rclpy does not destroy with its lifecycle node.

    It references the node: a process that skips the interpreter's shutdown would leave a segment in /dev/shm.
    """
    node._state_machine.destroy_when_not_in_use()


def run_exit_functions() -> None:
    """Run functions registered with ``atexit`` without shutting down the interpreter."""
    atexit._run_exitfuncs()
