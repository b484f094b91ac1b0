# SPDX-License-Identifier: Apache-2.0
"""Decodes a camera's video in a thread."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from std_msgs.msg import Header

from canet_ros.hints import optional_import_problem
from canet_ros.image_transports import VIDEO_TYPES
from canet_ros.messages.video import VideoDecoder, VideoFrame, VideoPacket, video_problem
from canet_ros.ros.image_conversion import message_class
from canet_ros.ros.statistics import Statistics

_MAX_WAITING = 100  # packets
_STOP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class VideoMessage:
    """A frame of video, in place of an image message."""

    header: Header
    frame: VideoFrame


def video_message_type(transport: str) -> type:
    """The message class of ``ffmpeg`` or ``foxglove``.

    Raises:
        ValueError: its package or PyAV is not installed; the message names the way to install it.
    """
    if problem := video_problem():
        raise ValueError(f"image_transport {transport} carries {problem}")
    try:
        return message_class(VIDEO_TYPES[transport])  # type: ignore[no-any-return]
    except ImportError as error:
        package = VIDEO_TYPES[transport].partition("/")[0]
        install = f"sudo apt install ros-{os.environ.get('ROS_DISTRO', 'DISTRO')}-{package.replace('_', '-')}"
        problem = optional_import_problem(package, error)
        raise ValueError(f"image_transport {transport}: {problem}: {install}") from None


class VideoInput:
    """Decodes packets in their order, without dropping one.

    If decoding is slower than the camera, the waiting packets are skipped and decoding resumes at the next keyframe.

    Args:
        on_frame: called with the outcome of each packet, mostly in the decoding thread.
        statistics: receives the durations of the stage ``decode``.
    """

    def __init__(self, on_frame: Callable[[VideoMessage], None], statistics: Statistics) -> None:
        self._on_frame = on_frame
        self._statistics = statistics
        # None: packets before the next one were lost.
        self._packets: queue.SimpleQueue[VideoPacket | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="video", daemon=True)
        self._thread.start()

    def put(self, packet: VideoPacket, after_loss: bool) -> None:
        """Queue a packet.

        Args:
            after_loss: the middleware lost packets before it.
        """
        if self._packets.qsize() >= _MAX_WAITING:
            after_loss = True
            with contextlib.suppress(queue.Empty):
                while True:
                    if skipped := self._packets.get_nowait():
                        problem = "video arrives faster than it can be decoded"
                        self._give(VideoFrame(-1, skipped, problem=problem))
        if after_loss:
            self._packets.put(None)
        self._packets.put(packet)

    def stop(self) -> None:
        self._stopping = True
        self._packets.put(None)
        self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        decoder = VideoDecoder()
        while not self._stopping:
            packet = self._packets.get()
            start_s = time.monotonic()
            try:
                frames = decoder.lose() if packet is None else decoder.decode(packet)
            except Exception as error:  # of the codec; the next keyframe may work
                decoder = VideoDecoder()
                problem = f"{type(error).__name__}: {error}"
                frames = [] if packet is None else [VideoFrame(-1, packet, problem=problem)]
            self._statistics.time({"decode": (time.monotonic() - start_s) * 1e3})
            for frame in frames:
                self._give(frame)

    def _give(self, frame: VideoFrame) -> None:
        if not self._stopping:
            header = Header(stamp=frame.packet.stamp, frame_id=frame.packet.frame_id)
            self._on_frame(VideoMessage(header, frame))
