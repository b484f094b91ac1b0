# SPDX-License-Identifier: Apache-2.0
"""All cameras of a node, created from the parameters."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.exceptions import ParameterException
from rclpy.node import Node

from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.nearest import did_you_mean
from canet_ros.model.class_table import ClassTable
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.ros.camera import Camera, FrameIntake
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.ground import GroundTopics
from canet_ros.ros.label_info import LabelInfoTopics
from canet_ros.ros.parameters import LiveSettings, NodeParameters

# A shared parameter file may hold qos_overrides of these topics for other nodes or for rclpy.
_COMMON_TOPICS = ("/clock", "/parameter_events", "/rosout", "/tf", "/tf_static", "/diagnostics")


class CameraSet:
    """All cameras.

    Attributes:
        by_name: in the order of ``image_topics``; empty until ``create``; never replaced.
        intake: of all cameras.
    """

    def __init__(self, node: Node, settings: NodeParameters, faults: FaultLog) -> None:
        self._node = node
        self._settings = settings
        self._faults = faults
        self.intake = FrameIntake(
            lambda: int(node.get_clock().now().nanoseconds), lambda: settings.value("max_rate")
        )
        self.by_name: dict[str, Camera] = {}
        self._ground: GroundTopics | None = None
        self._label_info: LabelInfoTopics | None = None

    def create(self) -> None:
        """Create all cameras and the node's topics beside them.

        Raises:
            ValueError: parameters conflict with each other or with the topics; cameras created so far remain.
        """
        settings, node = self._settings, self._node
        settings.check_together()
        transport, results_name = settings.value("image_transport"), settings.value("results_name")
        names = settings.value("image_topics")
        cameras = camera_topics([node.resolve_topic_name(name) for name in names], results_name)
        given = [node.resolve_topic_name(name, only_expand=True) for name in names]
        if settings.value("ground_group"):
            prefixes = [topics.results for topics in cameras]
            self._ground = GroundTopics(node, settings, prefixes, self._faults)
        for topics, before_remapping, cloud in zip(cameras, given, settings.clouds(len(cameras))):
            results = camera_topics([before_remapping], results_name)[0].results
            try:
                camera = Camera(
                    node, topics, results, transport, self.intake, self._faults, cloud, self._ground
                )
                self.by_name[topics.image] = camera
                camera.outputs.follow_groups(settings.live().groups)
                # Invalid qos_overrides fail now, not when results get their first subscriber.
                camera.subscribe()
                camera.unsubscribe()
            except (ParameterException, RuntimeError) as error:
                raise ValueError(f"qos_overrides of {topics.image}: {error}") from error
            node.get_logger().info(f"{topics.image} ({transport}): results under {topics.results}/")
        known = [name for name in node.get_parameters_by_prefix("") if name.startswith("qos_overrides.")]
        problems = [
            f"{name}: the node has no such topic in this role{did_you_mean(name, known)}"
            for name in settings.undeclared(of_qos=True)
            if name.split(".")[1] not in _COMMON_TOPICS and not name.split(".")[1].endswith("/label_info")
        ]
        if problems:
            raise ValueError("; ".join(problems))
        self._label_info = LabelInfoTopics(node, {topics.image: topics.results for topics in cameras})

    def begin(self, transforms: Iterable[CameraTransform]) -> None:
        """Prepare for activation with these camera transforms."""
        for camera, transform in zip(self.by_name.values(), transforms):
            camera.transform = transform
            camera.watch.reset()

    def check_graph(self, stale_after_s: float) -> None:
        """Check who publishes the cameras' topics; costs more than ``follow``."""
        for camera in self.by_name.values():
            camera.check_graph(stale_after_s)

    def follow(self, live: LiveSettings) -> None:
        """Have topics for the groups, and subscriptions to what somebody wants results of."""
        if self._label_info is not None:
            self._label_info.follow_threshold(live.min_confidence)
        if self._ground is not None:
            self._ground.follow_subscribers()
        for camera in self.by_name.values():
            camera.outputs.follow_groups(live.groups)
            camera.follow_subscribers()

    def publish_classes(self, classes: ClassTable) -> None:
        """Publish the classes of the masks that follow; runs in the inference thread."""
        self._settings.publish_classes(classes)
        if self._label_info is not None:
            partial = [camera.name for camera in self.by_name.values() if camera.transform.leaves_unlabelled]
            self._label_info.publish(classes, self._settings.live().min_confidence, partial)

    def enable(self, enabled: bool) -> None:
        """Admit or drop frames from now on."""
        self.intake.enabled = enabled
        for camera in self.by_name.values():
            camera.statistics.resume()

    def unsubscribe(self) -> None:
        for camera in self.by_name.values():
            camera.unsubscribe()

    def destroy(self) -> None:
        for camera in self.by_name.values():
            camera.destroy()
        if self._ground is not None:
            self._ground.destroy()
        if self._label_info is not None:
            self._label_info.destroy()
        self._ground = self._label_info = None
        self.by_name.clear()
