# SPDX-License-Identifier: Apache-2.0
"""The segmentation node: camera topics in, class masks out, as a managed (lifecycle) node. Only wiring is here."""

from __future__ import annotations

import functools
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import SetBool

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.model_folder import ModelError
from canet_ros.launching.network import environment_problems
from canet_ros.ros.camera import FrameIntake
from canet_ros.ros.camera_health import Conditions
from canet_ros.ros.camera_set import CameraSet
from canet_ros.ros.diagnostics import Diagnostics, NodeSnapshot
from canet_ros.ros.engine_supervisor import EngineSupervisor
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_log import FrameLog
from canet_ros.ros.label_info import LabelInfoTopics
from canet_ros.ros.manager_bond import ManagerBond
from canet_ros.ros.parameters import NodeParameters, changes
from canet_ros.ros.rclpy_compat import destroy_state_machine
from canet_ros.ros.run_node import run_node

# Matched events, which would tell of a new subscriber at once, do not exist on Humble; asking is cheap.
LOOK_S = 0.1
# Asking the graph who publishes what costs more.
_WATCH_CAMERAS_S = 0.5
# What a transition waits for threads; an inference that takes longer is left to itself.
_STOP_S = 2.0
Transition = Callable[["SegmentationNode", Any], Any]


def _logged(transition: Transition) -> Transition:
    """Log what a transition throws: rclpy turns it into ERROR without a word."""

    @functools.wraps(transition)
    def call(self: SegmentationNode, state: Any) -> Any:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return call


class SegmentationNode(LifecycleNode):  # type: ignore[misc]
    """See docs: parameters, topics and services are the package's promises to the outside.

    Configured it has its publishers. Active it has a model, or loads one beside the executor, and once it is there an
    inference thread and, for cameras whose results somebody wants, subscriptions. Activating does not wait for the
    model: an engine that is built takes minutes, lifecycle managers wait for seconds, and a transition that has begun
    can be neither taken back nor shut down. If the model cannot be had, the node deactivates itself.
    """

    def __init__(self) -> None:
        super().__init__("canet")
        for problem in environment_problems():
            self.get_logger().warning(problem)
        # Timers on ROS time would stand still where a simulation is paused or absent.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._settings = NodeParameters(self)
        self._faults = FaultLog(self.get_logger())
        self._label_info: LabelInfoTopics | None = None
        self._intake = FrameIntake(
            FrameLog(self.get_logger()), self._now_ns, lambda: float(self._settings.value("max_rate"))
        )
        self._cameras = CameraSet(self, self._settings, self._intake, self._faults)
        self._engine = EngineSupervisor(
            self._settings,
            self._cameras.by_name,
            self._intake,
            self._faults,
            self.get_logger(),
            on_ready=self._show_classes,
            on_change=lambda: self._diagnostics.publish(),
            on_given_up=lambda: self.trigger_deactivate(),
        )
        self._look_timer: Any = None
        self._watched_s = 0.0
        self._without_clock = False
        self._bond = ManagerBond(self)
        self._unknown_parameters = self._settings.warn_of_unknown()
        self._diagnostics = Diagnostics(self, self._steady_clock, self._snapshot)
        self._diagnostics.follow_period(float(self._settings.value("diagnostics_period")))
        self.create_service(SetBool, "~/enable", self._on_enable)
        if self._settings.value("autostart"):
            self._start_timer = self.create_timer(0.0, self._autostart, clock=self._steady_clock)

    # Transitions

    @_logged
    def on_configure(self, state: Any) -> Any:
        problems = self._settings.start_problems()
        if problems:
            reason = "; ".join(problems)
            self.get_logger().error(
                "not configured, because parameters given at start were refused; "
                f"set them and configure again: {reason}"
            )
            self._faults.remember("engine", f"not configured, refused at start: {reason}")
            return TransitionCallbackReturn.FAILURE
        try:
            results = self._cameras.create()
            self._label_info = LabelInfoTopics(self, results, self._steady_clock)
        except ValueError as error:
            self._release()
            self.get_logger().error(f"not configured, correct it and start the node again: {error}")
            self._faults.remember("engine", f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self._faults.remember("engine", "")
        self._enter("inactive")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_activate(self, state: Any) -> Any:
        try:
            request = self._engine.request()
            self._cameras.begin(self._settings.views(len(self._cameras.by_name)))
        except (ModelError, ValueError) as error:
            self.get_logger().error(f"not activated: {error}")
            self._faults.remember("engine", str(error))
            return TransitionCallbackReturn.FAILURE
        self._faults.remember("engine", "")
        self._watched_s = time.monotonic()
        self._look_timer = self.create_timer(LOOK_S, self._look, clock=self._steady_clock)
        self._diagnostics.follow_period(float(self._settings.value("diagnostics_period")))
        self._bond.form(float(self._settings.value("bond_timeout")))
        self._engine.start(request)
        self._enter("active")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_deactivate(self, state: Any) -> Any:
        self.stop()
        self._enter("inactive")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_cleanup(self, state: Any) -> Any:
        self._release()
        self._enter("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: Any) -> Any:
        self._release()
        self._enter("finalized")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_error(self, state: Any) -> Any:
        self._release()
        self._enter("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def _enter(self, state: str) -> None:
        self.get_logger().info(f"{self._settings.lifecycle_state} -> {state}")
        self._settings.lifecycle_state = state
        self._diagnostics.publish()

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Between the transitions

    def _look(self) -> None:
        """Ten times a second while active: what the node has to notice by itself."""
        now_s = time.monotonic()
        if now_s - self._watched_s >= _WATCH_CAMERAS_S:
            self._watched_s = now_s
            self._cameras.check_graph(float(self._settings.value("stale_after")))
            self._look_for_clock()
        self._engine.tick(float(self._settings.value("inference_timeout")))
        if not self._engine.is_working:
            return
        live = self._settings.live()
        if self._label_info is not None:
            self._label_info.follow_threshold(live.min_confidence)
        self._cameras.follow(live)

    def _show_classes(self, classes: ClassTable) -> None:
        self._settings.publish_classes(classes)
        if self._label_info is not None:
            partial = [c.name for c in self._cameras.by_name.values() if c.view.leaves_unlabelled]
            self._label_info.show(classes, self._settings.live().min_confidence, partial)

    def _snapshot(self) -> NodeSnapshot:
        engine = self._engine.snapshot()
        conditions = Conditions(
            lifecycle_state=self._settings.lifecycle_state,
            enabled=self._intake.enabled,
            loading=bool(engine.activity),
            engine_fault=self._faults.last("engine"),
            inference_fault=self._faults.last("inference"),
            stale_after_s=float(self._settings.value("stale_after")),
            max_rate_hz=float(self._settings.value("max_rate")),
            max_age_s=float(self._settings.value("max_age")),
        )
        return NodeSnapshot(
            conditions,
            engine,
            cameras=self._cameras.snapshots(),
            node_fault=self._faults.last("node"),
            without_clock=self._is_without_clock(),
            bond=self._bond.state,
            unknown_parameters=self._unknown_parameters,
        )

    def _is_without_clock(self) -> bool:
        """Whether the node waits for a clock that nobody publishes."""
        return bool(self._settings.value("use_sim_time")) and not self.count_publishers("/clock")

    def _look_for_clock(self) -> None:
        without = self._is_without_clock()
        if without and not self._without_clock:
            self.get_logger().warning(
                "use_sim_time is set, and nothing publishes /clock: the time stands still"
            )
        self._without_clock = without

    def set_parameters(self, parameter_list: Iterable[Any]) -> Any:
        """As rclpy's, one by one; see ``set_parameters_atomically``."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: Iterable[Any]) -> Any:
        """As rclpy's; integers meant as doubles become such, and read-only parameters take the value they have."""
        changed = changes(self, parameter_list)
        return super().set_parameters_atomically(changed) if changed else SetParametersResult(successful=True)

    def on_callback_error(self, error: Exception) -> None:
        """A callback threw: said, counted, and the node goes on."""
        self._engine.statistics.count("callback_failures")
        place = traceback.extract_tb(error.__traceback__)[-1]
        self._faults.report(
            "node",
            f"a callback failed: {type(error).__name__}: {error} ({place.filename}, line {place.lineno})",
        )

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_enable(self, request: Any, response: Any) -> Any:
        if request.data != self._intake.enabled:
            self.get_logger().info(f"{'resumed' if request.data else 'paused'} by ~/enable")
            self._cameras.forget_gaps()
        self._intake.enabled = request.data
        state = self._settings.lifecycle_state
        response.success = True
        response.message = ("segmenting" if request.data else "paused") + (
            "" if state == "active" else f" once it is active: the node is {state}"
        )
        self._diagnostics.publish()
        return response

    def stop(self, timeout_s: float = _STOP_S) -> bool:
        """End subscriptions and threads; whether all threads ended in time. One that did not is left to itself."""
        self._bond.drop()
        if self._look_timer is not None:
            self.destroy_timer(self._look_timer)
            self._look_timer = None
        self._cameras.unsubscribe()
        return self._engine.stop(timeout_s)

    def destroy_node(self) -> None:
        """Leave the ROS graph, and give back the shared memory of the middleware."""
        super().destroy_node()
        destroy_state_machine(self)

    def _release(self) -> None:
        self.stop()
        self._cameras.destroy()
        if self._label_info is not None:
            self._label_info.destroy()
            self._label_info = None
        self._engine.release()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; an inference that is under way is not waited for."""
    return run_node(
        SegmentationNode,
        stop=lambda node: node.stop(timeout_s=0.3),
        on_callback_error=SegmentationNode.on_callback_error,
        args=args,
    )


if __name__ == "__main__":
    sys.exit(main())
