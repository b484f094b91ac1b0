# SPDX-License-Identifier: Apache-2.0
"""The segmentation node: camera topics in, class masks out, as a managed (lifecycle) node."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import SetBool

from canet_ros.launching.network import environment_problems
from canet_ros.model.model_folder import ModelError
from canet_ros.ros.camera_health import NodeSnapshot
from canet_ros.ros.camera_set import CameraSet
from canet_ros.ros.diagnostics import CLOCK_MISSING, Diagnostics
from canet_ros.ros.engine_supervisor import EngineSupervisor
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.manager_bond import ManagerBond
from canet_ros.ros.parameters import NodeParameters, changes
from canet_ros.ros.rclpy_compat import destroy_state_machine, logged
from canet_ros.ros.run_node import BrokenProcessError, run_node

# Humble has no matched events to report a new subscriber, so the node polls; counting subscribers is cheap.
TICK_PERIOD_S = 0.1
GRAPH_CHECK_PERIOD_S = 0.5  # listing publishers costs more
_STOP_TIMEOUT_S = 2.0  # a thread that runs longer is abandoned


class SegmentationNode(LifecycleNode):  # type: ignore[misc]
    """Managed node; docs/reference/ describes its interface.

    A configured node has publishers. An active node also loads a model in another thread, then runs an inference thread
    and subscribes to the cameras whose results have subscribers. Activation does not wait for the model: building an
    engine takes minutes, lifecycle managers wait for seconds, and a transition cannot be cancelled. If the model cannot
    be loaded, the node deactivates itself.
    """

    def __init__(self) -> None:
        super().__init__("canet")
        for problem in environment_problems():
            self.get_logger().warning(problem)
        # Timers on ROS time would not fire while a simulation is paused or absent.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        try:
            self._settings = NodeParameters(self)
        except ValueError:
            self.destroy_node()
            raise
        self._faults = FaultLog(self.get_logger())
        self._cameras = CameraSet(self, self._settings, self._faults)
        self._engine = EngineSupervisor(
            self._settings,
            self._cameras,
            self._faults,
            self.get_logger(),
            on_change=lambda: self._diagnostics.publish(),
            on_failure=lambda: self.trigger_deactivate(),
        )
        self._check_timers: list[Any] = []
        self._bond = ManagerBond(self)
        self._unknown_parameters = self._settings.warn_about_unknown()
        self._diagnostics = Diagnostics(self, self._steady_clock, self._snapshot)
        self._diagnostics.follow_period(self._settings.value("diagnostics_period"))
        self.create_service(SetBool, "~/enable", self._on_enable)
        if self._settings.value("autostart"):
            self._start_timer = self.create_timer(0.0, self._autostart, clock=self._steady_clock)

    # Transitions

    @logged
    def on_configure(self, state: Any) -> Any:
        try:
            self._cameras.create()
        except ValueError as error:
            self._release()
            return self._refuse(
                Fault.NOT_CONFIGURED, f"not configured; correct this and restart the node: {error}"
            )
        self._faults.remember("engine")
        self._enter("inactive")
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: Any) -> Any:
        try:
            request = self._engine.request()
            self._cameras.begin(self._settings.transforms(len(self._cameras.by_name)))
        except (ModelError, ValueError) as error:
            return self._refuse(Fault.NOT_ACTIVATED, f"not activated: {error}")
        self._faults.remember("engine")
        self._check_timers = [
            self.create_timer(TICK_PERIOD_S, self._tick, clock=self._steady_clock),
            self.create_timer(GRAPH_CHECK_PERIOD_S, self._check_graph, clock=self._steady_clock),
        ]
        self._diagnostics.follow_period(self._settings.value("diagnostics_period"))
        self._bond.start(self._settings.value("bond_timeout"))
        self._engine.start(request)
        self._enter("active")
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_deactivate(self, state: Any) -> Any:
        self.stop()
        self._enter("inactive")
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_cleanup(self, state: Any) -> Any:
        self._release()
        self._enter("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, state: Any) -> Any:
        self._release()
        self._enter("finalized")
        return TransitionCallbackReturn.SUCCESS

    on_error = on_cleanup

    def _refuse(self, kind: Fault, reason: str) -> Any:
        self.get_logger().error(reason)
        self._faults.remember("engine", kind, reason)
        return TransitionCallbackReturn.FAILURE

    def _enter(self, state: str) -> None:
        self.get_logger().info(f"{self._settings.lifecycle_state} -> {state}")
        self._settings.lifecycle_state = state
        self._diagnostics.publish()

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # While the node is active

    def _tick(self) -> None:
        """Check the engine, and follow subscribers and live parameters."""
        try:
            self._engine.tick(self._settings.value("inference_timeout"))
        except BrokenProcessError:
            self._diagnostics.publish_last()
            raise
        if self._engine.is_working:
            self._cameras.follow(self._settings.live())

    def _snapshot(self) -> NodeSnapshot:
        value = self._settings.value
        return NodeSnapshot(
            lifecycle_state=self._settings.lifecycle_state,
            enabled=self._cameras.intake.enabled,
            engine=self._engine.snapshot(),
            cameras=tuple(camera.snapshot() for camera in self._cameras.by_name.values()),
            faults=self._faults.all_last(),
            stale_after_s=value("stale_after"),
            max_rate_hz=value("max_rate"),
            clock_missing=self._is_clock_missing(),
            bond=self._bond.status,
            unknown_parameters=self._unknown_parameters,
        )

    def _check_graph(self) -> None:
        """Check who publishes the cameras' topics and /clock."""
        self._cameras.check_graph(self._settings.value("stale_after"))
        if self._is_clock_missing():
            self._faults.advise("node", Fault.CLOCK_MISSING, CLOCK_MISSING)

    def _is_clock_missing(self) -> bool:
        return self._settings.value("use_sim_time") and not self.count_publishers("/clock")

    def set_parameters(self, parameter_list: Iterable[Any]) -> Any:
        """Set parameters one by one; see ``set_parameters_atomically``."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: Iterable[Any]) -> Any:
        """Set parameters like rclpy, but accept integers for doubles and unchanged values of read-only parameters."""
        changed = changes(self, parameter_list)
        return super().set_parameters_atomically(changed) if changed else SetParametersResult(successful=True)

    def on_callback_error(self, error: Exception) -> None:
        """Report and count an exception of a callback; the node continues."""
        self._engine.statistics.count("callback_failures")
        place = traceback.extract_tb(error.__traceback__)[-1]
        self._faults.report(
            "node",
            Fault.CALLBACK_FAILED,
            f"a callback failed: {type(error).__name__}: {error} ({place.filename}, line {place.lineno})",
        )

    def _on_enable(self, request: Any, response: Any) -> Any:
        if request.data != self._cameras.intake.enabled:
            self.get_logger().info(f"{'resumed' if request.data else 'paused'} by ~/enable")
            self._cameras.enable(request.data)
        state = self._settings.lifecycle_state
        response.success, response.message = True, "segmenting" if request.data else "paused"
        if state != "active":
            response.message += f" once activated: the node is {state}"
        self._diagnostics.publish()
        return response

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
        """End subscriptions and threads; return whether all threads ended in time. The others are abandoned."""
        self._bond.stop()
        while self._check_timers:
            self.destroy_timer(self._check_timers.pop())
        self._cameras.unsubscribe()
        return self._engine.stop(timeout_s)

    def destroy_node(self) -> None:
        """Leave the ROS graph and release the middleware's shared memory."""
        super().destroy_node()
        destroy_state_machine(self)

    def _release(self) -> None:
        self.stop()
        self._cameras.destroy()
        self._engine.release()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, without waiting for a running inference."""
    return run_node(
        SegmentationNode,
        stop=lambda node: node.stop(timeout_s=0.3),
        on_callback_error=SegmentationNode.on_callback_error,
        args=args,
    )


if __name__ == "__main__":
    sys.exit(main())
