# SPDX-License-Identifier: Apache-2.0
"""Bond with Nav2's lifecycle manager, which notices through it that this node has stopped."""

from __future__ import annotations

from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node

from canet_ros.hints import optional_import_problem

try:
    from bondpy.bondpy import Bond  # isort: skip
    from bond.msg import Constants
except Exception as error:  # a broken installation can raise anything
    Bond, _IMPORT_PROBLEM = None, optional_import_problem("bondpy", error)

# As in nav2_util::LifecycleNode; the manager uses the same topic, in its namespace.
TOPIC = "bond"
HEARTBEAT_S = 0.1
_BREAK_TIMEOUT_S = 0.1  # as in bondcpp: the message of a publisher that ends at once may be lost


class ManagerBond:
    """At most one bond, whose id is the node's name. Without bondpy it does nothing.

    Attributes:
        status: text for diagnostics.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bond: Any = None
        self.status = "none" if Bond is not None else f"none: {_IMPORT_PROBLEM}"

    def start(self, timeout_s: float) -> None:
        """Start a bond.

        Args:
            timeout_s: a manager without a heartbeat for longer counts as stopped; 0: no bond.
        """
        self.stop()
        if timeout_s <= 0:
            return
        if Bond is None:
            logger = self._node.get_logger()
            log = logger.warning if "broken" in _IMPORT_PROBLEM else logger.debug
            log(f"no bond with a lifecycle manager: {_IMPORT_PROBLEM}")
            return
        self.status = "waiting for a lifecycle manager"
        self._bond = Bond(self._node, TOPIC, self._node.get_name(), self._on_broken, self._on_formed)
        self._bond.heartbeat_timeout = timeout_s
        self._bond.heartbeat_period = HEARTBEAT_S
        self._bond.start()

    def stop(self) -> None:
        """Break the bond, which notifies the manager."""
        bond, self._bond = self._bond, None
        if bond is None:
            return
        self.status = "none"
        bond.set_broken_callback(None)
        bond.break_bond()
        bond.wait_until_broken(Duration(seconds=_BREAK_TIMEOUT_S))
        bond.shutdown()
        # bondpy destroys these without removing them from the node,
        self._node.destroy_subscription(bond.sub)
        self._node.destroy_publisher(bond.pub)
        # and declares this parameter again for the next bond, which rclpy refuses.
        if self._node.has_parameter(Constants.DISABLE_HEARTBEAT_TIMEOUT_PARAM):
            self._node.undeclare_parameter(Constants.DISABLE_HEARTBEAT_TIMEOUT_PARAM)

    def _on_formed(self) -> None:
        self.status = "formed"

    def _on_broken(self) -> None:
        if self.status == "formed":
            self.status = "broken: the lifecycle manager has stopped"
            self._node.get_logger().warning(f"bond: {self.status}")
        else:
            self.status = "none: no lifecycle manager responded"
