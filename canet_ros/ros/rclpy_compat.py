# SPDX-License-Identifier: Apache-2.0
"""Private parts of rclpy and CPython, and differences between ROS distributions."""

from __future__ import annotations

import atexit
import functools
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rclpy._rclpy_pybind11 import RCLError as RCLError
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.subscription import Subscription

try:
    from rclpy import event_handler as qos_events
except ImportError:  # Humble
    from rclpy import qos_event as qos_events

PublisherEventCallbacks = qos_events.PublisherEventCallbacks
SubscriptionEventCallbacks = qos_events.SubscriptionEventCallbacks
UnsupportedEventTypeError = qos_events.UnsupportedEventTypeError
# Whether callbacks of subscriptions can receive the sequence number and publisher of a message; not on Humble.
GIVES_MESSAGE_INFO = hasattr(Subscription, "CallbackType")


def given_parameters(node: Node) -> Mapping[str, Any]:
    """Parameters given at start (file, launch or ``-p``) by name, declared or not."""
    given: Mapping[str, Any] = getattr(node, "_parameter_overrides", {})
    return given


def logged(transition: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Log an exception of a node's transition, which rclpy turns into ERROR without a message."""

    @functools.wraps(transition)
    def call(node: Any, state: Any) -> Any:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return call


def destroy_state_machine(node: LifecycleNode) -> None:
    """Destroy the state machine, which rclpy does not destroy with its lifecycle node.

    It references the node: a process that skips the interpreter's shutdown would leave a segment in /dev/shm.
    """
    node._state_machine.destroy_when_not_in_use()


def run_exit_functions() -> None:
    """Run functions registered with ``atexit`` without shutting down the interpreter."""
    atexit._run_exitfuncs()
