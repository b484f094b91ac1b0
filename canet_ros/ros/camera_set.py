# SPDX-License-Identifier: Apache-2.0
"""All cameras of a node, created from the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rclpy.exceptions import ParameterException
from rclpy.node import Node

from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.network import interface_addresses
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.ros import qos
from canet_ros.ros.camera import Camera, FrameIntake
from canet_ros.ros.camera_health import CameraSnapshot
from canet_ros.ros.camera_watch import CameraWatch
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.parameters import LiveSettings, NodeParameters

if TYPE_CHECKING:
    from canet_ros.ros.ground import GroundTopics

# A shared parameter file may hold qos_overrides of these topics for other nodes or for rclpy.
_COMMON_TOPICS = ("/clock", "/parameter_events", "/rosout", "/tf", "/tf_static", "/diagnostics")


class CameraSet:
    """The cameras by their names, in the order of ``image_topics``; none until ``create``."""

    def __init__(self, node: Node, settings: NodeParameters, intake: FrameIntake, faults: FaultLog) -> None:
        self._node = node
        self._settings = settings
        self._intake = intake
        self._faults = faults
        self._interfaces = interface_addresses()
        self._cameras: dict[str, Camera] = {}
        self._watches: dict[str, CameraWatch] = {}
        self._ground: GroundTopics | None = None

    @property
    def by_name(self) -> Mapping[str, Camera]:
        """The same mapping for as long as the set lives."""
        return self._cameras

    def create(self) -> dict[str, str]:
        """Create all cameras; return the prefix of each camera's results by the camera's name.

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
            from canet_ros.ros.ground import GroundTopics  # which needs nav_msgs

            prefixes = [topics.results for topics in cameras]
            self._ground = GroundTopics(node, settings, prefixes, self._faults)
        for topics, before_remapping, cloud in zip(cameras, given, settings.clouds(len(cameras))):
            results = camera_topics([before_remapping], results_name)[0].results
            try:
                camera = Camera(
                    node, topics, results, transport, self._intake, self._faults, cloud, self._ground
                )
                self._cameras[topics.image] = camera
                camera.outputs.follow_groups(settings.live().groups)
                # Invalid qos_overrides fail now, not when results get their first subscriber.
                camera.input.subscribe()
                camera.input.unsubscribe()
            except (ParameterException, RuntimeError) as error:
                raise ValueError(f"qos_overrides of {topics.image}: {error}") from error
            self._watches[topics.image] = CameraWatch(node, camera, transport, self._interfaces)
            node.get_logger().info(f"{topics.image} ({transport}): results under {topics.results}/")
        known = [name for name in node.get_parameters_by_prefix("") if name.startswith("qos_overrides.")]
        _require_none(
            qos.unknown_override_problem(name, known)
            for name in settings.undeclared(of_qos=True)
            if name.split(".")[1] not in _COMMON_TOPICS and not name.split(".")[1].endswith("/label_info")
        )
        return {topics.image: topics.results for topics in cameras}

    def begin(self, transforms: Iterable[CameraTransform]) -> None:
        """Prepare for activation with these camera transforms."""
        for camera, transform in zip(self._cameras.values(), transforms):
            camera.transform = transform
        for watch in self._watches.values():
            watch.reset()

    def check_graph(self, stale_after_s: float) -> None:
        """Check who publishes the cameras' topics; costs more than ``follow``."""
        for watch in self._watches.values():
            watch.check(stale_after_s)
        for camera in self._cameras.values():
            camera.input.follow_camera_info()

    def follow(self, live: LiveSettings) -> None:
        """Have topics for the groups, and subscriptions to what somebody wants results of."""
        if self._ground is not None:
            self._ground.follow_subscribers()
        for camera in self._cameras.values():
            camera.outputs.follow_groups(live.groups)
            camera.follow_subscribers()

    def snapshots(self) -> tuple[CameraSnapshot, ...]:
        watches = self._watches
        return tuple(
            camera.snapshot(watches[name].topic_problem, watches[name].rivals())
            for name, camera in self._cameras.items()
        )

    def reset_gaps(self) -> None:
        """Do not count images as missing that were not sent while the node was paused."""
        for camera in self._cameras.values():
            camera.statistics.reset_gaps()

    def unsubscribe(self) -> None:
        for camera in self._cameras.values():
            camera.input.unsubscribe()

    def destroy(self) -> None:
        for camera in self._cameras.values():
            camera.destroy()
        if self._ground is not None:
            self._ground.destroy()
            self._ground = None
        self._cameras.clear()
        self._watches.clear()


def _require_none(problems: Iterable[str]) -> None:
    text = "; ".join(problems)
    if text:
        raise ValueError(text)
