# SPDX-License-Identifier: Apache-2.0
"""The segmentation node: camera topics in, class masks out, as a managed (lifecycle) node. Only wiring is here."""

from __future__ import annotations

import functools
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import SetBool

from canet_ros.inference import Segmenter
from canet_ros.inference.engines import EngineError
from canet_ros.inference.model_folder import ModelError, shipped_model
from canet_ros.inference.palette import recolored
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.ros.camera import Camera
from canet_ros.ros.diagnostics import Diagnostics
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult, ReceivedFrame
from canet_ros.ros.label_info import LabelInfoTopics
from canet_ros.ros.outputs import Style
from canet_ros.ros.parameters import NodeParameters, SegmenterChoice
from canet_ros.ros.run_node import run_node
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.worker import InferenceWorker

# Matched events, which would tell of a new subscriber at once, do not exist on Humble; asking is cheap.
LOOK_FOR_SUBSCRIBERS_S = 0.1

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

    Configured it has its publishers; active it has a model, an inference thread and, for cameras whose results
    somebody wants, subscriptions.
    """

    def __init__(self) -> None:
        super().__init__("canet")
        # Timers on ROS time would stand still where a simulation is paused or absent.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._settings = NodeParameters(self)
        self._faults = FaultLog(self.get_logger())
        self._engine_statistics = Statistics()
        self._cameras: dict[str, Camera] = {}
        self._label_info: LabelInfoTopics | None = None
        self._slots: LatestSlots[ReceivedFrame] = LatestSlots()
        self._segmenter: Segmenter | None = None
        self._segmenter_choice: SegmenterChoice | None = None
        self._worker: InferenceWorker | None = None
        self._encoder: Encoder | None = None
        self._look_timer: Any = None
        self._enabled = True
        self._diagnostics = Diagnostics(
            self,
            self._settings,
            self._cameras,
            segmenter=lambda: self._segmenter,
            engine_statistics=self._engine_statistics,
            faults=self._faults,
            steady_clock=self._steady_clock,
        )
        self.create_service(SetBool, "~/enable", self._on_enable)
        if self._settings.value("autostart"):
            self._start_timer = self.create_timer(0.0, self._autostart, clock=self._steady_clock)

    # Transitions

    @_logged
    def on_configure(self, state: Any) -> Any:
        problems = self._settings.start_problems()
        if problems:
            self.get_logger().error(
                "not configured, because parameters given at start were refused; set them and configure again: "
                + "; ".join(problems)
            )
            return TransitionCallbackReturn.FAILURE
        transport = self._settings.value("image_transport")
        images = [self.resolve_topic_name(name) for name in self._settings.value("image_topics")]
        results_name = self._settings.value("results_name")
        cameras = camera_topics(images, results_name)
        given = [self.resolve_topic_name(n, only_expand=True) for n in self._settings.value("image_topics")]
        for topics, before_remapping in zip(cameras, given):
            results = camera_topics([before_remapping], results_name)[0].results
            camera = Camera(self, topics, results, transport, self._on_image, self._faults)
            camera.outputs.follow_groups(self._settings.live().groups)
            self._cameras[topics.image] = camera
            self.get_logger().info(f"{topics.image} ({transport}): results under {topics.results}/")
        self._label_info = LabelInfoTopics(self, [topics.results for topics in cameras], self._steady_clock)
        self._settings.lifecycle_state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_activate(self, state: Any) -> Any:
        try:
            segmenter = self._load_segmenter()
            self._settings.check_groups(segmenter.spec.classes)
            for camera, view in zip(self._cameras.values(), self._settings.views(len(self._cameras))):
                camera.view = view
        except Exception as error:  # a driver or an engine can throw anything here
            foreseen = isinstance(error, (ModelError, EngineError, ValueError))
            self.get_logger().error(f"not activated: {error if foreseen else traceback.format_exc()}")
            self._faults.remember("engine", str(error))
            return TransitionCallbackReturn.FAILURE
        self._faults.remember("engine", "")
        classes = recolored(segmenter.spec.classes, self._settings.value("palette"))
        self._settings.publish_classes(classes)
        if self._label_info is not None:
            self._label_info.show(classes, self._settings.live().min_confidence)
        self._slots = LatestSlots()
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
        )
        self._look_timer = self.create_timer(
            LOOK_FOR_SUBSCRIBERS_S, self._look_for_subscribers, clock=self._steady_clock
        )
        self._diagnostics.follow_period()
        self._settings.lifecycle_state = "active"
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_deactivate(self, state: Any) -> Any:
        self.stop()
        self._settings.lifecycle_state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_cleanup(self, state: Any) -> Any:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: Any) -> Any:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_error(self, state: Any) -> Any:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Between the transitions

    def _load_segmenter(self) -> Segmenter:
        choice = self._settings.segmenter_choice()
        if self._segmenter is None or choice != self._segmenter_choice:
            self._segmenter = None  # two models at once may not fit on the device
            start_s = time.monotonic()
            self._segmenter = Segmenter.load(
                choice.model or shipped_model(choice.architecture, choice.backbone),
                device=choice.device,
                engine=choice.engine,
                precision=choice.precision,
                resolution=choice.resolution,
                max_batch=len(self._cameras),
            )
            self._segmenter_choice = choice
            engine, spec = self._segmenter.engine, self._segmenter.spec
            self.get_logger().info(
                f"model {spec.name} at {self._segmenter.resolution_text} on {engine.device}, "
                f"{engine.name} {engine.precision} ({engine.reason}), loaded in {time.monotonic() - start_s:.1f} s"
            )
        return self._segmenter

    def _look_for_subscribers(self) -> None:
        live = self._settings.live()
        if self._label_info is not None:
            self._label_info.follow_threshold(live.min_confidence)
        for camera in self._cameras.values():
            camera.outputs.follow_groups(live.groups)
            camera.follow_subscribers()

    def _on_image(self, camera: Camera, message: Any) -> None:
        received_s = time.monotonic()
        camera.statistics.receive(message.header.stamp, self._now_ns())
        if not self._enabled:
            camera.statistics.count("paused")
            return
        max_rate_hz = self._settings.live().max_rate_hz
        result = self._slots.put(
            camera.name,
            ReceivedFrame(message, received_s),
            admits=lambda: camera.rate_limit.allows(received_s, max_rate_hz),
        )
        if result is PutResult.REPLACED_OLDER:
            camera.statistics.count("replaced")
        elif result is PutResult.REFUSED:
            camera.statistics.count("over_rate")

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        response.success = True
        response.message = "segmenting" if request.data else "paused"
        return response

    def stop(self, timeout_s: float | None = None) -> bool:
        """End subscriptions and threads; whether the threads ended in time."""
        if self._look_timer is not None:
            self.destroy_timer(self._look_timer)
            self._look_timer = None
        for camera in self._cameras.values():
            camera.input.unsubscribe()
        # The worker first: it feeds the encoder.
        if self._worker is not None and not self._worker.stop(timeout_s):
            return False
        self._worker = None
        if self._encoder is not None and not self._encoder.stop(timeout_s):
            return False
        self._encoder = None
        return True

    def _release(self) -> None:
        self.stop()
        for camera in self._cameras.values():
            camera.destroy()
        self._cameras.clear()
        if self._label_info is not None:
            self._label_info.destroy()
            self._label_info = None
        self._segmenter = None
        self._settings.lifecycle_state = "unconfigured"


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; an inference that is under way is not waited for."""
    return run_node(SegmentationNode, lambda node: node.stop(timeout_s=0.3), args)


if __name__ == "__main__":
    sys.exit(main())
