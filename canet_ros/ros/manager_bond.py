# SPDX-License-Identifier: Apache-2.0
"""The bond by which Nav2's lifecycle manager hears at once that this node is gone, or no longer at work."""

from __future__ import annotations

from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node

from canet_ros.hints import optional_import_problem

try:
    from bondpy.bondpy import Bond  # isort: skip
    from bond.msg import Constants
except Exception as error:  # of a broken installation, whatever it throws
    Bond, _WITHOUT = None, optional_import_problem("bondpy", error)

# As Nav2's own nodes have it (nav2_util::LifecycleNode). The manager bonds on the same topic, in its namespace.
TOPIC = "bond"
HEARTBEAT_S = 0.1
# What the farewell is repeated for, as bondcpp has it: a message of a publisher that ends at once may be lost.
_FAREWELL_S = 0.1


class ManagerBond:
    """At most one bond of a node, whose id is the node's name. Without bondpy it does nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bond: Any = None
        self._state = ""

    @property
    def state(self) -> str:
        """For people."""
        return f"none: {_WITHOUT}" if Bond is None else self._state or "none"

    def form(self, timeout_s: float) -> None:
        """Begin a bond; 0: none.

        Args:
            timeout_s: a manager that is silent for longer is taken for gone.
        """
        self.drop()
        if timeout_s <= 0:
            return
        if Bond is None:
            say = self._node.get_logger().warning if "broken" in _WITHOUT else self._node.get_logger().debug
            say(f"no bond to a lifecycle manager, because {_WITHOUT}")
            return
        self._state = "waits for a lifecycle manager"
        self._bond = Bond(self._node, TOPIC, self._node.get_name(), self._on_broken, self._on_formed)
        self._bond.heartbeat_timeout = timeout_s
        self._bond.heartbeat_period = HEARTBEAT_S
        self._bond.start()

    def drop(self) -> None:
        """Tell the manager that the node is no longer at work."""
        bond, self._bond, self._state = self._bond, None, ""
        if bond is None:
            return
        bond.set_broken_callback(None)
        bond.break_bond()
        bond.wait_until_broken(Duration(seconds=_FAREWELL_S))
        bond.shutdown()
        # bondpy destroys both without a word to the node, which would keep them for ever,
        self._node.destroy_subscription(bond.sub)
        self._node.destroy_publisher(bond.pub)
        # and declares this again for every bond that times out, which rclpy refuses.
        if self._node.has_parameter(Constants.DISABLE_HEARTBEAT_TIMEOUT_PARAM):
            self._node.undeclare_parameter(Constants.DISABLE_HEARTBEAT_TIMEOUT_PARAM)

    def _on_formed(self) -> None:
        self._state = "formed"
        self._node.get_logger().info("the bond with the lifecycle manager is formed")

    def _on_broken(self) -> None:
        if self._state == "formed":
            self._state = "broken: the lifecycle manager is gone"
            self._node.get_logger().warning(self._state)
        else:
            self._state = "none: no lifecycle manager answers"
            self._node.get_logger().debug(self._state)
