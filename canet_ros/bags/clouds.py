# SPDX-License-Identifier: Apache-2.0
"""Labelled points in a bag: its clouds or depth images, with the classes of their camera's masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, BagError, Message
from canet_ros.bags.cameras import BagCamera
from canet_ros.bags.message_types import MessageError, from_cdr, header_stamp_ns, new, stamp_in, to_cdr
from canet_ros.bags.options import Options
from canet_ros.bags.progress import Progress
from canet_ros.bags.reading import Bag
from canet_ros.formats import parse_groups, parse_pose
from canet_ros.messages.clouds import CloudError
from canet_ros.messages.points import label_message
from canet_ros.messages.projection import rigid_transform
from canet_ros.messages.results import POINT_CLOUD, points_message
from canet_ros.pipeline.outputs import RenderInput, point_outputs

_KEPT = 30
# A cloud is recorded up to this long after the image of its stamp.
_LATE_NS = 300_000_000


@dataclass
class _Source:
    """Points of one camera.

    Attributes:
        to_camera: (3, 4) [R|t] to its optical frame; None: as the frames say.
        info: its camera_info.
        waiting: log time, header and results of the images whose clouds may still come.
    """

    camera: BagCamera
    topic: str
    depth: bool
    to_camera: NDArray[np.float64] | None
    info: bytes
    recorded: deque[Message] = field(default_factory=lambda: deque(maxlen=_KEPT))
    waiting: deque[tuple[int, Any, RenderInput]] = field(default_factory=deque)


class Clouds:
    """Writes the labelled points of each image, some time after the image.

    Args:
        put: takes camera, output, log time in ns, and CDR.

    Raises:
        BagError: the bag lacks a topic.
    """

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        options: Options,
        progress: Progress,
        put: Callable[[BagCamera, str, int, bytes], None],
    ) -> None:
        self._options = options
        self._progress = progress
        self._put = put
        outputs = point_outputs(parse_groups(options.groups))
        self._outputs = {name: classes for name, classes in outputs.items() if name in options.outputs}
        self._sources: dict[str, _Source] = {}
        types = {connection.topic: connection.msgtype for connection in bag.connections}
        lists = (options.cloud_topics, options.cloud_extrinsics, options.depth_topics)
        for camera, (cloud, extrinsics, depth) in zip(cameras, zip_longest(*lists, fillvalue="")):
            topic, expected = cloud or depth, (IMAGE, COMPRESSED_IMAGE) if depth else (POINT_CLOUD,)
            if not topic:
                continue
            if types.get(topic) not in expected:
                raise BagError(f"the bag has no topic {topic} with {' or '.join(expected)}")
            infos = {c for c in bag.connections if (c.topic, c.msgtype) == (camera.camera_info, CAMERA_INFO)}
            info = dict(bag.first_messages(infos)).get(camera.camera_info, b"")
            pose = parse_pose(extrinsics)
            to_camera = None if pose is None else rigid_transform(pose)
            self._sources[camera.topic] = _Source(camera, topic, bool(depth), to_camera, info)

    def take(self, message: Message) -> None:
        """Store a cloud or a camera_info, and write the points that are due."""
        for source in self._sources.values():
            if message.connection.topic == source.topic:
                source.recorded.append(message)
            elif message.connection.topic == source.camera.camera_info:
                source.info = message.data
            while source.waiting and source.waiting[0][0] + _LATE_NS <= message.log_ns:
                self._write_oldest(source, message.log_ns)

    def write_for(self, camera: BagCamera, log_ns: int, header: Any, drawing: RenderInput) -> None:
        """Write the points of an image when its cloud has been read."""
        if camera.topic in self._sources:
            self._sources[camera.topic].waiting.append((log_ns, header, drawing))

    def end_file(self, log_ns: int) -> None:
        """Write all points; the next file begins without clouds, as in a resumed run."""
        for source in self._sources.values():
            while source.waiting:
                self._write_oldest(source, log_ns)
            source.recorded.clear()

    def _write_oldest(self, source: _Source, log_ns: int) -> None:
        _, header, drawing = source.waiting.popleft()
        state = self._progress.cameras[source.camera.topic]
        stamp_ns = header_stamp_ns(header)
        nearest = min(source.recorded, key=lambda m: abs(stamp_in(m.data) - stamp_ns), default=None)
        if nearest is None or abs(stamp_in(nearest.data) - stamp_ns) > self._options.sync_slop * 1e9:
            state.without_cloud += 1
            return
        source.recorded.remove(nearest)
        try:
            if not source.info:
                raise CloudError("cannot label points without camera_info")
            cloud = from_cdr(nearest.data, nearest.connection.msgtype)
            to_camera = source.to_camera
            if not source.depth and to_camera is None:
                frames = cloud.header.frame_id, header.frame_id
                if frames[0] != frames[1]:
                    raise CloudError(
                        "no transform from {!r} to {!r}: give --cloud-extrinsics".format(*frames)
                    )
                to_camera = np.eye(3, 4)
            points = label_message(
                cloud,
                to_camera,
                from_cdr(source.info, CAMERA_INFO),
                drawing.image.shape,
                drawing.segmentation,
                drawing.options.style.rgb_table,
            )
        except (CloudError, MessageError) as error:
            state.bad_clouds, state.cloud_problem = state.bad_clouds + 1, state.cloud_problem or str(error)
            return
        for name, classes_of in self._outputs.items():
            classes = classes_of(drawing.options.style.classes)
            chosen = points.organized(classes) if self._options.organized_points else points.of(classes)
            self._put(
                source.camera, name, log_ns, to_cdr(points_message(new, chosen, cloud.header), POINT_CLOUD)
            )

    def add_summary_notes(self) -> None:
        """Add the notes that need the whole bag."""
        for source in self._sources.values():
            state = self._progress.cameras[source.camera.topic]
            note, slop_s = self._progress.note, self._options.sync_slop
            if state.bad_clouds:
                note(f"{source.topic}: {state.bad_clouds} could not be used: {state.cloud_problem}")
            if state.without_cloud:
                images = f"{state.without_cloud} images of {source.camera.topic}"
                note(f"no points for {images}: nothing on {source.topic} within {slop_s:g} s")
