# SPDX-License-Identifier: Apache-2.0
"""The camera_info of each mask in a bag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from canet_ros.bags.bag import CAMERA_INFO as CAMERA_INFO_TYPE
from canet_ros.bags.bag import Message
from canet_ros.bags.cameras import BagCamera
from canet_ros.bags.frame_processing import FrameResult
from canet_ros.bags.message_types import MessageError, from_cdr, header, stamp_ns, to_cdr
from canet_ros.bags.progress import Progress
from canet_ros.bags.reading import Bag
from canet_ros.messages.camera_info import outdated_problem, scaled_camera_info
from canet_ros.messages.images import ImageMessageError
from canet_ros.pipeline.drawing import CAMERA_INFO
from canet_ros.pipeline.image_files import in_short

_INFOS_KEPT = 10


class CameraInfos:
    """Writes for each image the camera_info with its stamp, else the latest one, scaled to the mask.

    Args:
        put: takes camera, output, time of recording in ns, and CDR.
    """

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        progress: Progress,
        put: Callable[[BagCamera, str, int, bytes], None],
    ) -> None:
        self._bag = bag
        self._cameras = cameras
        self._by_info: dict[str, list[BagCamera]] = {}
        for camera in cameras:
            self._by_info.setdefault(camera.camera_info, []).append(camera)
        self._first_infos: dict[str, tuple[int, bytes]] = {}
        self._progress = progress
        self._put = put

    def load_initial(self, start_ns: int | None) -> None:
        """Load the camera_info for images that precede the first one: the last before the cut, else the first."""
        wanted = {
            c for c in self._bag.connections if c.topic in self._by_info and c.msgtype == CAMERA_INFO_TYPE
        }
        found = dict(self._bag.first_messages(wanted))
        if start_ns is not None:
            for connection in wanted:
                for message in self._bag.newest_first(connection.stream, start_ns):
                    found[connection.topic] = message.data
                    break
        for topic, data in found.items():
            if (entry := self._info_entry(topic, data)) is not None:
                self._first_infos[topic] = entry

    def _info_entry(self, topic: str, data: bytes) -> tuple[int, bytes] | None:
        """Stamp and CDR; None, with a note, if it cannot be decoded."""
        try:
            return stamp_ns(from_cdr(data, CAMERA_INFO_TYPE)), data
        except MessageError as error:
            self._progress.note(f"{topic}: {error}")
            return None

    def take(self, message: Message) -> None:
        """Store a camera_info, and write it for the images that wait for it."""
        if message.connection.msgtype == CAMERA_INFO_TYPE:
            for camera in self._by_info.get(message.connection.topic, ()):
                self._take_info(camera, message)

    def _take_info(self, camera: BagCamera, message: Message) -> None:
        """Store a camera_info, and write it scaled if an image waits for it."""
        state = self._progress.cameras[camera.topic]
        entry = self._info_entry(camera.camera_info, message.data)
        if entry is None:
            return
        stamp = entry[0]
        state.infos = [*state.infos[1 - _INFOS_KEPT :], entry]
        for waiting in [entry for entry in state.waiting if entry[0] == stamp]:
            state.waiting.remove(waiting)
            self._write_info(camera, message.log_ns, entry, *waiting)

    def write_for(self, camera: BagCamera, log_ns: int, result: FrameResult | None) -> None:
        """Write the camera_info of an image if it was read, and a substitute for images that still wait for theirs."""
        state = self._progress.cameras[camera.topic]
        infos = state.infos or [info for info in [self._first_infos.get(camera.camera_info)] if info]
        for stamp, frame_id, size in state.waiting:
            if infos:
                near = [info for info in infos if not outdated_problem(info[0], stamp)]
                self._write_info(camera, log_ns, (near or infos)[-1], stamp, frame_id, size)
            else:
                state.without_info += 1
        state.waiting = []
        if result is None:
            return
        stamp, frame_id = result.stamp_ns, result.frame_id
        exact = [info for info in state.infos if info[0] == stamp]
        if exact:
            self._write_info(camera, log_ns, exact[-1], stamp, frame_id, result.size)
        else:
            state.waiting = [(stamp, frame_id, result.size)]

    def _write_info(
        self,
        camera: BagCamera,
        log_ns: int,
        info: tuple[int, bytes],
        stamp: int,
        frame_id: str,
        size: tuple[int, int],
    ) -> None:
        state = self._progress.cameras[camera.topic]
        message = from_cdr(info[1], CAMERA_INFO_TYPE)
        shared = len(self._by_info[camera.camera_info]) > 1
        if shared and message.header.frame_id and frame_id and message.header.frame_id != frame_id:
            self._progress.note(
                f"{camera.topic}: no camera_info: the frame_id on {camera.camera_info} is "
                f"{message.header.frame_id!r}, that of the images {frame_id!r}"
            )
            return
        try:
            scaled = scaled_camera_info(message, (size[0], size[1]))
        except ImageMessageError as error:
            self._progress.note(f"{camera.camera_info}: {error}")
            return
        if problem := outdated_problem(info[0], stamp):
            count, first = state.outdated
            state.outdated = count + 1, first or problem
        scaled.header = header(stamp, frame_id)
        self._put(camera, CAMERA_INFO, log_ns, to_cdr(scaled, CAMERA_INFO_TYPE))

    def end_file(self, log_ns: int) -> None:
        """Write a substitute for images that still wait for their camera_info."""
        for camera in self._cameras:
            self.write_for(camera, log_ns, None)

    def add_summary_notes(self) -> None:
        """Add the notes that need the whole bag."""
        results = {f"{camera.results}/{CAMERA_INFO}" for camera in self._cameras}
        recorded = {c.topic for c in self._bag.connections if c.msgtype == CAMERA_INFO_TYPE} - results
        for camera in self._cameras:
            state = self._progress.cameras[camera.topic]
            if state.outdated[0]:
                self._progress.note(f"{camera.topic}: {state.outdated[1]} ({state.outdated[0]} images)")
            if state.without_info and recorded:
                reason = (
                    f"none was recorded on {camera.camera_info} so far"
                    if camera.camera_info in recorded
                    else f"{camera.camera_info} was not recorded, only {in_short(sorted(recorded))}"
                )
                self._progress.note(
                    f"{camera.topic}: no camera_info for {state.without_info} images: {reason}"
                )
