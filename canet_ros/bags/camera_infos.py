# SPDX-License-Identifier: Apache-2.0
"""The camera_info of each mask in a bag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from canet_ros.bags.bag import CAMERA_INFO as CAMERA_INFO_TYPE
from canet_ros.bags.bag import Message
from canet_ros.bags.cameras import BagCamera
from canet_ros.bags.frame_processing import FrameResult
from canet_ros.bags.message_types import MessageError, from_cdr, header_stamp_ns, to_cdr
from canet_ros.bags.progress import Progress
from canet_ros.bags.reading import Bag
from canet_ros.messages.camera_info import CameraInfoBuffer, outdated_problem, scaled_camera_info
from canet_ros.messages.images import ImageMessageError
from canet_ros.pipeline.image_files import in_short
from canet_ros.pipeline.outputs import CAMERA_INFO


class CameraInfos:
    """Writes a camera_info for each image, scaled to the mask, by the rule of the node (``CameraInfoBuffer``).

    In a bag the camera_info may follow its image, so an image waits for it until the next image of its camera.

    Args:
        put: takes camera, output, log time in ns, and CDR.
    """

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        progress: Progress,
        put: Callable[[BagCamera, str, int, bytes], None],
    ) -> None:
        self._bag = bag
        self._cameras: dict[str, list[BagCamera]] = defaultdict(list)
        for camera in cameras:
            self._cameras[camera.camera_info].append(camera)
        self._buffers = {topic: CameraInfoBuffer() for topic in self._cameras}
        self._initial: dict[str, Any] = {}
        self._waiting: dict[str, FrameResult] = {}
        self._progress = progress
        self._put = put

    def load_initial(self, start_ns: int | None) -> None:
        """Load the camera_info for images that precede the first one: the last before the cut, else the first."""
        wanted = {
            c for c in self._bag.connections if c.topic in self._cameras and c.msgtype == CAMERA_INFO_TYPE
        }
        found = dict(self._bag.first_messages(wanted))
        if start_ns is not None:
            for connection in wanted:
                for message in self._bag.newest_first(connection.stream, start_ns):
                    found[connection.topic] = message.data
                    break
        self._initial = {topic: info for topic, data in found.items() if (info := self._decode(topic, data))}

    def _decode(self, topic: str, data: bytes) -> Any | None:
        """The camera_info; None, with a note, if it cannot be decoded."""
        try:
            return from_cdr(data, CAMERA_INFO_TYPE)
        except MessageError as error:
            self._progress.note(f"{topic}: {error}")
            return None

    def take(self, message: Message) -> None:
        """Store a camera_info, and write it for the images that wait for it."""
        topic = message.connection.topic
        if message.connection.msgtype != CAMERA_INFO_TYPE or topic not in self._cameras:
            return
        info = self._decode(topic, message.data)
        if info is None:
            return
        self._buffers[topic].put(info)
        for camera in self._cameras[topic]:
            waiting = self._waiting.get(camera.topic)
            if waiting is not None and waiting.header.stamp == info.header.stamp:
                del self._waiting[camera.topic]
                self._write(camera, message.log_ns, info, waiting)

    def write_for(self, camera: BagCamera, log_ns: int, result: FrameResult) -> None:
        """Write the camera_info of an image if it was read, and a substitute for the image that waits for its own."""
        self._write_substitute(camera, log_ns)
        info = self._buffers[camera.camera_info].exact(result.header.stamp)
        if info is None:
            self._waiting[camera.topic] = result
        else:
            self._write(camera, log_ns, info, result)

    def end_file(self, log_ns: int) -> None:
        """Write a substitute for images that wait for their camera_info."""
        for cameras in self._cameras.values():
            for camera in cameras:
                self._write_substitute(camera, log_ns)

    def _write_substitute(self, camera: BagCamera, log_ns: int) -> None:
        waiting = self._waiting.pop(camera.topic, None)
        if waiting is None:
            return
        info = self._buffers[camera.camera_info].match(waiting.header.stamp)
        info = info or self._initial.get(camera.camera_info)
        if info is None:
            self._progress.cameras[camera.topic].without_info += 1
        else:
            self._write(camera, log_ns, info, waiting)

    def _write(self, camera: BagCamera, log_ns: int, info: Any, result: FrameResult) -> None:
        topic, frame_id, info_frame_id = camera.camera_info, result.header.frame_id, info.header.frame_id
        if len(self._cameras[topic]) > 1 and info_frame_id and frame_id and info_frame_id != frame_id:
            self._progress.note(
                f"{camera.topic}: no camera_info: the frame_id on {topic} is {info_frame_id!r}, that of the images "
                f"{frame_id!r}"
            )
            return
        try:
            scaled = scaled_camera_info(info, result.size)
        except ImageMessageError as error:
            self._progress.note(f"{topic}: {error}")
            return
        if problem := outdated_problem(header_stamp_ns(info.header), header_stamp_ns(result.header)):
            state = self._progress.cameras[camera.topic]
            state.outdated, state.outdated_problem = state.outdated + 1, state.outdated_problem or problem
        scaled.header = result.header
        self._put(camera, CAMERA_INFO, log_ns, to_cdr(scaled, CAMERA_INFO_TYPE))

    def add_summary_notes(self) -> None:
        """Add the notes that need the whole bag."""
        cameras = [camera for cameras in self._cameras.values() for camera in cameras]
        results = {f"{camera.results}/{CAMERA_INFO}" for camera in cameras}
        recorded = {c.topic for c in self._bag.connections if c.msgtype == CAMERA_INFO_TYPE} - results
        for camera in cameras:
            state = self._progress.cameras[camera.topic]
            if state.outdated:
                self._progress.note(f"{camera.topic}: {state.outdated_problem} ({state.outdated} images)")
            if state.without_info and recorded:
                reason = (
                    f"none was recorded on {camera.camera_info} so far"
                    if camera.camera_info in recorded
                    else f"{camera.camera_info} was not recorded, only {in_short(sorted(recorded))}"
                )
                self._progress.note(
                    f"{camera.topic}: no camera_info for {state.without_info} images: {reason}"
                )
