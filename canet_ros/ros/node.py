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

from canet_ros.inference import Segmenter, progress
from canet_ros.inference.engines import EngineError
from canet_ros.inference.familiarity import FamiliarityWatch
from canet_ros.inference.model_folder import (
    ModelError,
    find_model,
    load_spec,
    shipped_model,
)
from canet_ros.inference.palette import recolored
from canet_ros.inference.segmenter import CameraShapedSegmenter
from canet_ros.inference.self_test import self_test
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.nearest import with_guess
from canet_ros.launching.network import environment_problems, interface_addresses
from canet_ros.launching.parameter_files import file_problems, parameter_files, read_parameter_file
from canet_ros.messages.pictures import Style
from canet_ros.ros import qos
from canet_ros.ros.camera import Camera
from canet_ros.ros.camera_watch import CameraWatch
from canet_ros.ros.diagnostics import Diagnostics
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_log import FrameLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult, ReceivedFrame
from canet_ros.ros.label_info import LabelInfoTopics
from canet_ros.ros.manager_bond import ManagerBond
from canet_ros.ros.model_loader import ModelLoader, ModelRequest
from canet_ros.ros.parameters import NodeParameters, changes
from canet_ros.ros.run_node import run_node
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.worker import InferenceWorker

# Matched events, which would tell of a new subscriber at once, do not exist on Humble; asking is cheap.
LOOK_S = 0.1
# Asking the graph who publishes what costs more.
_WATCH_CAMERAS_S = 0.5
# So often is said in the log that a model is still being loaded.
_SAY_LOADING_S = 30.0
# An engine that hangs so many times is left alone: each leaves a thread and its memory behind.
_MOST_ENGINE_RESTARTS = 3
# An engine that has recovered for so long may hang again.
_RECOVERED_S = 60.0
# What a transition waits for threads; an inference that takes longer is left to itself.
_STOP_S = 2.0
# Topics whose qos_overrides in a shared file are for other nodes, or for rclpy.
_TOPICS_OF_OTHERS = ("/clock", "/parameter_events", "/rosout", "/tf", "/tf_static", "/diagnostics")

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
        self._interfaces = interface_addresses()
        for problem in environment_problems():
            self.get_logger().warning(problem)
        # Timers on ROS time would stand still where a simulation is paused or absent.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._settings = NodeParameters(self)
        self._faults = FaultLog(self.get_logger())
        self._engine_statistics = Statistics()
        self._cameras: dict[str, Camera] = {}
        self._label_info: LabelInfoTopics | None = None
        self._watches: dict[str, CameraWatch] = {}
        self._slots: LatestSlots[ReceivedFrame] = LatestSlots()
        self._frame_log = FrameLog(self.get_logger())
        self._loader = ModelLoader(self._load_segmenter)
        self._segmenter: Segmenter | None = None
        self._self_test = ""
        self._engine_restarts = 0  # without ``_RECOVERED_S`` of work between them
        self._engine_restarted_s = 0.0
        self._worker: InferenceWorker | None = None
        self._encoder: Encoder | None = None
        self._look_timer: Any = None
        self._looked_s = self._watched_s = self._said_loading_s = 0.0
        self._without_clock = False
        self._bond = ManagerBond(self)
        self._enabled = True
        self._diagnostics = Diagnostics(
            self,
            self._settings,
            self._cameras,
            segmenter=lambda: self._segmenter,
            engine_statistics=self._engine_statistics,
            faults=self._faults,
            steady_clock=self._steady_clock,
            watches=self._watches,
            doing=lambda: self._loader.doing() or progress.now(),
            self_test=lambda: self._self_test,
            worker=lambda: self._worker,
            bond=lambda: self._bond.state,
            unknown_parameters=self._warn_of_unknown_parameters(),
            enabled=lambda: self._enabled,
        )
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
            self._create_topics()
        except ValueError as error:
            self._release()
            self.get_logger().error(f"not configured, correct it and start the node again: {error}")
            self._faults.remember("engine", f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self._faults.remember("engine", "")
        self._enter("inactive")
        return TransitionCallbackReturn.SUCCESS

    def _create_topics(self) -> None:
        self._settings.check_together()
        problems = qos.override_problems(self._settings.overrides(of_qos=True))
        if problems:
            raise ValueError("; ".join(problems))
        transport = self._settings.value("image_transport")
        images = [self.resolve_topic_name(name) for name in self._settings.value("image_topics")]
        results_name = self._settings.value("results_name")
        cameras = camera_topics(images, results_name)
        given = [self.resolve_topic_name(n, only_expand=True) for n in self._settings.value("image_topics")]
        clouds = self._settings.clouds(len(cameras))
        for topics, before_remapping, cloud in zip(cameras, given, clouds):
            results = camera_topics([before_remapping], results_name)[0].results
            camera = Camera(self, topics, results, transport, self._on_image, self._faults, cloud)
            self._cameras[topics.image] = camera
            self._watches[topics.image] = CameraWatch(self, camera, transport, self._interfaces)
            camera.outputs.follow_groups(self._settings.live().groups)
            # What a subscription would refuse is refused now, not when somebody first wants results.
            camera.input.subscribe()
            camera.input.unsubscribe()
            self.get_logger().info(f"{topics.image} ({transport}): results under {topics.results}/")
        self._label_info = LabelInfoTopics(
            self, {topics.image: topics.results for topics in cameras}, self._steady_clock
        )
        known = [name for name in self.get_parameters_by_prefix("") if name.startswith("qos_overrides.")]
        problems = [
            qos.unknown_override_problem(name, known)
            for name in self._settings.undeclared(of_qos=True)
            if name.split(".")[1] not in _TOPICS_OF_OTHERS and not name.split(".")[1].endswith("/label_info")
        ]
        if problems:
            raise ValueError("; ".join(problems))

    @_logged
    def on_activate(self, state: Any) -> Any:
        try:
            request = self._model_request()
            for camera, view in zip(self._cameras.values(), self._settings.views(len(self._cameras))):
                camera.view = view
        except (ModelError, ValueError) as error:
            self.get_logger().error(f"not activated: {error}")
            self._faults.remember("engine", str(error))
            return TransitionCallbackReturn.FAILURE
        self._faults.remember("engine", "")
        self._engine_restarts = 0
        self._said_loading_s = time.monotonic()
        self._slots = LatestSlots()
        self._load(request)
        self._looked_s = self._watched_s = time.monotonic()
        for watch in self._watches.values():
            watch.forget()
        self._look_timer = self.create_timer(LOOK_S, self._look, clock=self._steady_clock)
        self._diagnostics.follow_period()
        self._bond.form(float(self._settings.value("bond_timeout")))
        self._enter("active")
        outcome = self._loader.outcome()
        if outcome is not None and outcome.segmenter is not None:  # it is there from the last time
            self._begin(outcome.segmenter)
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

    def _model_request(self) -> ModelRequest:
        """What the parameters ask for, as far as it can be told from the model's files.

        Raises:
            ModelError: the model is missing or broken.
            ValueError: values exclude each other, or a group names a class that the model does not have.
        """
        self._settings.check_together()
        choice = self._settings.segmenter_choice()
        folder = find_model(choice.model or shipped_model(choice.architecture, choice.backbone))
        self._settings.check_groups(load_spec(folder).classes)
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        return ModelRequest(
            choice,
            max_batch=len(self._cameras),
            files=tuple((str(path), status.st_mtime_ns, status.st_size) for path, status in files),
        )

    def _load(self, request: ModelRequest) -> None:
        self._loader.request(request)
        if self._loader.outcome() is None:
            self._segmenter = None  # two models at once may not fit on the device

    def _load_segmenter(self, request: ModelRequest) -> Segmenter:
        """Runs in the loader's thread."""
        choice = request.choice
        segmenter = Segmenter.load(
            choice.model or shipped_model(choice.architecture, choice.backbone),
            device=choice.device,
            engine=choice.engine,
            precision=choice.precision,
            resolution=choice.resolution,
            max_batch=request.max_batch,
        )
        if isinstance(segmenter, CameraShapedSegmenter):
            self._self_test = "to come with the engine"
            segmenter.prove = self._prove_for_camera
        else:
            self._prove(segmenter)
        return segmenter

    def _prove_for_camera(self, segmenter: Segmenter) -> None:
        """As ``_prove``; only now is it known what the parameters came to."""
        self._prove(segmenter)
        self.get_logger().info(_engine_text(segmenter))

    def _prove(self, segmenter: Segmenter) -> None:
        """Let the engine show the model's test picture; runs where the engine is made."""
        test = self_test(segmenter)
        self._self_test = str(test)
        if not test.passed:
            raise EngineError(f"the engine's masks are wrong: {test}")
        if test.absent:
            self.get_logger().info(str(test))

    def _look(self) -> None:
        """Ten times a second while active: what the node has to notice by itself."""
        now_s = time.monotonic()
        elapsed_s, self._looked_s = now_s - self._looked_s, now_s
        if now_s - self._watched_s >= _WATCH_CAMERAS_S:
            self._watched_s = now_s
            for watch in self._watches.values():
                watch.look(float(self._settings.value("stale_after")))
            for camera in self._cameras.values():
                camera.input.follow_camera_info()
            self._look_for_clock()
        if self._worker is None:
            self._follow_loading()
            return
        live = self._settings.live()
        if self._label_info is not None:
            self._label_info.follow_threshold(live.min_confidence)
        for camera in self._cameras.values():
            camera.outputs.follow_groups(live.groups)
            camera.follow_subscribers()
        if self._encoder is not None:
            self._encoder.look_after()
        fault = self._worker.look_after(elapsed_s, float(self._settings.value("inference_timeout")))
        if fault:
            self._restart_engine(fault)
        elif self._worker.works:
            self._faults.remember("engine", "")
            if now_s - self._engine_restarted_s > _RECOVERED_S:
                self._engine_restarts = 0

    def _follow_loading(self) -> None:
        """Begin to segment when the model is there; say how far it is meanwhile."""
        outcome = self._loader.outcome()
        now_s = time.monotonic()
        if outcome is None:
            if now_s - self._said_loading_s >= _SAY_LOADING_S:
                self._said_loading_s = now_s
                self.get_logger().info(self._loader.doing())
            return
        if outcome.segmenter is None:
            foreseen = isinstance(outcome.error, (ModelError, EngineError, ValueError))
            error = outcome.error
            text = str(error) if foreseen else "".join(traceback.format_exception(error)).strip()
            self._give_up(str(error) or type(error).__name__, text)
            return
        if outcome.segmenter is not self._segmenter:
            self._segmenter = outcome.segmenter
            self.get_logger().info(f"{_engine_text(self._segmenter)}, loaded in {outcome.took_s:.1f} s")
        self._begin(outcome.segmenter)

    def _begin(self, segmenter: Segmenter) -> None:
        classes = recolored(segmenter.spec.classes, self._settings.value("palette"))
        self._settings.publish_classes(classes)
        if self._label_info is not None:
            partial = [c.name for c in self._cameras.values() if c.view.leaves_unlabelled]
            self._label_info.show(classes, self._settings.live().min_confidence, partial)
        for camera in self._cameras.values():
            camera.familiarity = FamiliarityWatch(segmenter.spec.familiar)
            camera.steadying.forget()
        if self._encoder is None:
            self._encoder = Encoder(self._faults)
        self._worker = InferenceWorker(
            slots=self._slots,
            cameras=self._cameras,
            segmenter=segmenter,
            encoder=self._encoder,
            style=Style(classes, self._settings.value("legend")),
            at_network_size=self._settings.value("mask_size") == "network",
            live=self._settings.live,
            now_ns=self._now_ns,
            statistics=self._engine_statistics,
            faults=self._faults,
            frame_log=self._frame_log,
        )
        self._diagnostics.publish()

    def _restart_engine(self, fault: str) -> None:
        """Load the engine anew in other threads; the old ones are left to themselves."""
        assert self._worker is not None
        self._engine_restarts += 1
        self._engine_restarted_s = time.monotonic()
        self._engine_statistics.count("engine_restarts")
        if self._engine_restarts > _MOST_ENGINE_RESTARTS:
            self._give_up(f"{fault}, after {_MOST_ENGINE_RESTARTS} restarts of the engine", fault)
            return
        self._abandon_engine()
        self._slots = LatestSlots()
        text = f"{fault}; the engine is started again ({self._engine_restarts} of {_MOST_ENGINE_RESTARTS})"
        self.get_logger().error(text)
        self._faults.remember("engine", text)
        try:
            self._load(self._model_request())
        except (ModelError, ValueError) as error:
            self._give_up(str(error), str(error))
            return
        self._diagnostics.publish()

    def _give_up(self, why: str, details: str) -> None:
        """Become inactive, because there is no engine."""
        self.get_logger().error(f"not activated, the node is inactive again: {details}")
        self._faults.remember("engine", why)
        self._abandon_engine()
        self.trigger_deactivate()

    def _abandon_engine(self) -> None:
        """Use this engine no more, whatever its thread is in."""
        if self._worker is not None:
            self._worker.abandon()
            self._worker = None
        self._segmenter = None
        self._loader.forget()

    def _look_for_clock(self) -> None:
        without = self._diagnostics.without_clock()
        if without and not self._without_clock:
            self.get_logger().warning(
                "use_sim_time is set, and nothing publishes /clock: the time stands still"
            )
        self._without_clock = without

    def _warn_of_unknown_parameters(self) -> list[str]:
        """Say once which values nobody reads; a vehicle must not drive on defaults unknown to its engineer."""
        names = self._settings.undeclared(of_qos=False)
        if names:
            known = list(self.get_parameters_by_prefix(""))
            self.get_logger().warning(
                "parameters that this node does not have, and ignores: "
                + ", ".join(with_guess(name, known) for name in names)
            )
        for file in parameter_files(sys.argv):
            try:
                problems = file_problems(read_parameter_file(file), self.get_fully_qualified_name())
            except ValueError as error:  # of what rcl takes: empty, or for a hundred nodes
                problems = [str(error)]
            for problem in problems:
                self.get_logger().warning(f"{file}: {problem}")
        return names

    def set_parameters(self, parameter_list: Iterable[Any]) -> Any:
        """As rclpy's, one by one; see ``set_parameters_atomically``."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: Iterable[Any]) -> Any:
        """As rclpy's; integers meant as doubles become such, and read-only parameters take the value they have."""
        changed = changes(self, parameter_list)
        return super().set_parameters_atomically(changed) if changed else SetParametersResult(successful=True)

    def on_callback_error(self, error: Exception) -> None:
        """A callback threw: said, counted, and the node goes on."""
        self._engine_statistics.count("callback_failures")
        place = traceback.extract_tb(error.__traceback__)[-1]
        self._faults.report(
            "node",
            f"a callback failed: {type(error).__name__}: {error} ({place.filename}, line {place.lineno})",
        )

    def _on_image(self, camera: Camera, message: Any) -> None:
        received_s = time.monotonic()
        camera.statistics.receive(message.header.stamp, self._now_ns())
        if not self._enabled:
            camera.statistics.count("paused")
            self._frame_log.say(camera.name, message.header, "dropped: paused", {})
            return
        max_rate_hz = self._settings.live().max_rate
        result = self._slots.put(
            camera.name,
            ReceivedFrame(message, received_s),
            admits=lambda: camera.rate_limit.allows(received_s, max_rate_hz),
        )
        if result is PutResult.REPLACED_OLDER:
            camera.statistics.count("replaced")
            self._frame_log.say(
                camera.name, message.header, "came, and the one that waited is dropped: replaced", {}
            )
        elif result is PutResult.REFUSED:
            camera.statistics.count("over_rate")
            self._frame_log.say(camera.name, message.header, "dropped: over_rate", {})

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_enable(self, request: Any, response: Any) -> Any:
        if request.data != self._enabled:
            self.get_logger().info(f"{'resumed' if request.data else 'paused'} by ~/enable")
            for camera in self._cameras.values():
                camera.statistics.begin_anew()
        self._enabled = request.data
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
        for camera in self._cameras.values():
            camera.input.unsubscribe()
        ended = not self._loader.busy
        # The worker first: it feeds the encoder.
        if self._worker is not None and not self._worker.stop(timeout_s):
            # Another thread must not use the same engine.
            self._abandon_engine()
            ended = False
        self._worker = None
        if self._encoder is not None:
            ended = self._encoder.stop(timeout_s) and ended
            self._encoder = None
        return ended

    def destroy_node(self) -> None:
        """Leave the ROS graph, and give back the shared memory of the middleware."""
        super().destroy_node()
        # It holds the node, which rclpy forgets: the middleware would keep its segment of /dev/shm, 32 MB with our
        # profile, and a process that does not end by Python's own end would leave it behind.
        self._state_machine.destroy_when_not_in_use()

    def _release(self) -> None:
        self.stop()
        for camera in self._cameras.values():
            camera.destroy()
        self._cameras.clear()
        self._watches.clear()
        if self._label_info is not None:
            self._label_info.destroy()
            self._label_info = None
        self._segmenter = None
        self._loader.forget()


def _engine_text(segmenter: Segmenter) -> str:
    engine, model = segmenter.engine, f"model {segmenter.spec.name}"
    if isinstance(segmenter, CameraShapedSegmenter):
        return f"{model}: size, engine and precision follow from the first image"
    why = "; ".join((engine.reason, *engine.passed_over))
    return (
        f"{model} at {segmenter.resolution_text} on {engine.device}, {engine.name} {engine.precision} ({why})"
    )


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
