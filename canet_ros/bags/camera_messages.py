# SPDX-License-Identifier: Apache-2.0
"""The results of an image that need other messages of the bag: camera_info, and labelled points."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import CAMERA_INFO as CAMERA_INFO_TYPE
from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE, BagError, Message
from canet_ros.bags.cameras import BagCamera
from canet_ros.bags.frame_processing import FrameResult
from canet_ros.bags.message_types import MessageError, from_cdr, header_stamp_ns, new, stamp_in, to_cdr
from canet_ros.bags.options import Options
from canet_ros.bags.progress import Progress
from canet_ros.bags.reading import Bag
from canet_ros.formats import parse_groups, parse_pose
from canet_ros.messages.camera_info import CameraInfoBuffer, outdated_problem, scaled_camera_info
from canet_ros.messages.clouds import CloudError
from canet_ros.messages.images import ImageMessageError
from canet_ros.messages.points import label_message
from canet_ros.messages.projection import rigid_transform
from canet_ros.messages.results import POINT_CLOUD, points_message
from canet_ros.pipeline.image_files import in_short
from canet_ros.pipeline.outputs import CAMERA_INFO, RenderInput, point_outputs
from canet_ros.pipeline.visualization import color_lookup_table

_KEPT_CLOUDS = 30
# A cloud is recorded up to this long after the image of its stamp.
_LATE_NS = 300_000_000


@dataclass
class _Waiting:
    """What was read beside the images of a camera, and the images that wait for more.

    Attributes:
        source: topic of its clouds or depth images; empty: none.
        to_camera: (3, 4) [R|t] from clouds to its optical frame; None: as the frames say.
        for_info: the last image, until its camera_info or the next image is read.
        for_cloud: log time, header and results of images whose clouds may still come.
    """

    camera: BagCamera
    source: str
    is_depth: bool
    to_camera: NDArray[np.float64] | None
    clouds: deque[Message] = field(default_factory=lambda: deque(maxlen=_KEPT_CLOUDS))
    for_info: FrameResult | None = None
    for_cloud: deque[tuple[int, Any, RenderInput]] = field(default_factory=deque)


class CameraMessages:
    """Writes camera_info and points for the images of one file of OUT.

    An image gets the camera_info with its stamp, which may follow it, else the last one before the next image, else
    the first one of the bag. It gets the cloud nearest to its stamp, some time after the image.

    Args:
        start_ns: beginning of the file, see ``Bag.messages``.
        put: takes camera, output, log time in ns, and CDR.

    Raises:
        BagError: the bag lacks a topic of clouds.
    """

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        options: Options,
        progress: Progress,
        start_ns: int | None,
        put: Callable[[BagCamera, str, int, bytes], None],
    ) -> None:
        self._cameras: dict[str, _Waiting] = {}
        types = {connection.topic: connection.msgtype for connection in bag.connections}
        lists = (options.cloud_topics, options.cloud_extrinsics, options.depth_topics)
        filled = [(*values, *("" for _ in cameras)) for values in lists]
        for camera, cloud, extrinsics, depth in zip(cameras, *filled):
            expected = (IMAGE, COMPRESSED_IMAGE) if depth else (POINT_CLOUD,)
            if (cloud or depth) and types.get(cloud or depth) not in expected:
                raise BagError(f"the bag has no topic {cloud or depth} with {' or '.join(expected)}")
            pose = parse_pose(extrinsics)
            to_camera = None if pose is None else rigid_transform(pose)
            self._cameras[camera.topic] = _Waiting(camera, cloud or depth, bool(depth), to_camera)
        self._options, self._progress, self._put = options, progress, put
        outputs = point_outputs(parse_groups(options.groups))
        self._clouds = {name: classes for name, classes in outputs.items() if name in options.outputs}
        topics = [camera.camera_info for camera in cameras]
        self._buffers = {topic: CameraInfoBuffer() for topic in topics}
        self._shared = {topic for topic in topics if topics.count(topic) > 1}
        infos = {connection.topic for connection in bag.connections if connection.msgtype == CAMERA_INFO_TYPE}
        self._recorded = sorted(infos - {f"{camera.results}/{CAMERA_INFO}" for camera in cameras})
        wanted = {c for c in bag.connections if c.topic in topics and c.msgtype == CAMERA_INFO_TYPE}
        self._first = {
            topic: self._decode_info(topic, data) for topic, data in bag.first_messages(wanted).items()
        }
        for connection in wanted if start_ns is not None else ():
            for message in bag.newest_first(connection.stream, start_ns or 0):
                self.take(message)
                break

    def take(self, message: Message) -> None:
        """Store a camera_info or a cloud, and write what is due."""
        topic = message.connection.topic
        is_info = topic in self._buffers and message.connection.msgtype == CAMERA_INFO_TYPE
        info = self._decode_info(topic, message.data) if is_info else None
        if info is not None:
            self._buffers[topic].put(info)
        for state in self._cameras.values():
            waiting = state.for_info
            if info and waiting and topic == state.camera.camera_info:
                if waiting.header.stamp == info.header.stamp:
                    self._write_info(state, message.log_ns)
            elif topic == state.source:
                state.clouds.append(message)
            while state.for_cloud and state.for_cloud[0][0] + _LATE_NS <= message.log_ns:
                self._write_points(state, message.log_ns)

    def write_for(self, camera: BagCamera, log_ns: int, result: FrameResult) -> None:
        """Write for an image, now or later; called in the order of the images."""
        state = self._cameras[camera.topic]
        if CAMERA_INFO in self._options.outputs:
            self._write_info(state, log_ns)
            state.for_info = result
            if self._buffers[camera.camera_info].exact(result.header.stamp) is not None:
                self._write_info(state, log_ns)
        if result.drawing is not None and state.source:
            state.for_cloud.append((log_ns, result.header, result.drawing))

    def finish(self, log_ns: int) -> None:
        """Write for all images that wait."""
        for state in self._cameras.values():
            self._write_info(state, log_ns)
            while state.for_cloud:
                self._write_points(state, log_ns)

    def _decode_info(self, topic: str, data: bytes) -> Any | None:
        """The camera_info; None, with a note, if it cannot be decoded."""
        try:
            return from_cdr(data, CAMERA_INFO_TYPE)
        except MessageError as error:
            self._progress.note(f"{topic}: {error}")
            return None

    def _info(self, camera: BagCamera, header: Any) -> Any | None:
        return self._buffers[camera.camera_info].match(header.stamp) or self._first.get(camera.camera_info)

    def _write_info(self, state: _Waiting, log_ns: int) -> None:
        if (result := state.for_info) is None:
            return
        state.for_info = None
        camera, note = state.camera, self._progress.note
        topic, header = camera.camera_info, result.header
        info = self._info(camera, header)
        if info is None:
            if self._recorded:
                other = f"{topic} was not recorded, only {in_short(self._recorded)}"
                reason = f"none was recorded on {topic} so far" if topic in self._recorded else other
                note(f"{camera.topic}: no camera_info for {{count}} images: {reason}")
            return
        frame_id, info_frame_id = header.frame_id, info.header.frame_id
        if topic in self._shared and info_frame_id and frame_id and info_frame_id != frame_id:
            problem = f"the frame_id on {topic} is {info_frame_id!r}, that of the images {frame_id!r}"
            note(f"{camera.topic}: no camera_info: {problem}")
            return
        try:
            scaled = scaled_camera_info(info, result.size)
        except ImageMessageError as error:
            note(f"{topic}: {error}")
            return
        if problem := outdated_problem(header_stamp_ns(info.header), header_stamp_ns(header)):
            note(f"{camera.topic}: {problem} ({{count}} images)", f"{camera.topic}: outdated")
        scaled.header = result.header
        self._put(camera, CAMERA_INFO, log_ns, to_cdr(scaled, CAMERA_INFO_TYPE))

    def _write_points(self, state: _Waiting, log_ns: int) -> None:
        """Write the points of the oldest image that waits for them."""
        _, header, drawing = state.for_cloud.popleft()
        source, note = state.source, self._progress.note
        stamp_ns, slop_s = header_stamp_ns(header), self._options.sync_slop
        nearest = min(state.clouds, key=lambda m: abs(stamp_in(m.data) - stamp_ns), default=None)
        if nearest is None or abs(stamp_in(nearest.data) - stamp_ns) > slop_s * 1e9:
            reason = f"nothing on {source} within {slop_s:g} s"
            note(f"no points for {{count}} images of {state.camera.topic}: {reason}")
            return
        state.clouds.remove(nearest)
        mask_classes = drawing.options.classes
        try:
            if (info := self._info(state.camera, header)) is None:
                raise CloudError("cannot label points without camera_info")
            cloud = from_cdr(nearest.data, nearest.connection.msgtype)
            to_camera = state.to_camera
            if not state.is_depth and to_camera is None:
                frames = cloud.header.frame_id, header.frame_id
                if frames[0] != frames[1]:
                    raise CloudError(
                        "no transform from {!r} to {!r}: give --cloud-extrinsics".format(*frames)
                    )
                to_camera = np.eye(3, 4)
            rgb_table = color_lookup_table(mask_classes)
            points = label_message(
                cloud, to_camera, info, drawing.image.shape, drawing.segmentation, rgb_table
            )
        except (CloudError, MessageError) as error:
            note(f"{source}: {{count}} could not be used: {error}", f"{source}: not used")
            return
        for name, classes_of in self._clouds.items():
            classes = classes_of(mask_classes)
            chosen = points.organized(classes) if self._options.organized_points else points.of(classes)
            message = points_message(new, chosen, cloud.header)
            self._put(state.camera, name, log_ns, to_cdr(message, POINT_CLOUD))
