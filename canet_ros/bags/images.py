# SPDX-License-Identifier: Apache-2.0
"""Decodes the images of a bag, also those of video topics."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import IMAGE, Message, Stream
from canet_ros.bags.message_types import MessageError, from_cdr, new
from canet_ros.bags.reading import Bag
from canet_ros.image_transports import VIDEO_TYPES
from canet_ros.messages.images import ImageMessageError, decode_compressed, decode_image
from canet_ros.messages.video import VideoDecoder, VideoFrame, VideoPacket

Image = tuple[Any, NDArray[np.uint8]]
"""std_msgs/Header, and (H, W, 3) BGR or (H, W) grey uint8."""

_UNREAD = VideoFrame(-1, VideoPacket(b"", "", None, ""), problem="the packet cannot be read again")


def image_messages(bag: Bag, streams: Collection[Stream]) -> Iterator[tuple[Message, Callable[[], Image]]]:
    """Yield the messages of image streams, each with a function that decodes it as ``image_from_cdr``."""
    videos = VideoTopics(bag, streams)
    for message in bag.messages(streams=streams):
        msgtype, frame = message.connection.msgtype, videos.frame(message)
        yield message, functools.partial(image_from_cdr, message.data, msgtype, frame)


def image_from_cdr(data: bytes, msgtype: str, video: VideoFrame | None = None) -> Image:
    """Header and image of an image message in CDR.

    Args:
        video: the decoded frame of a video message.

    Raises:
        ImageMessageError: it cannot be decoded.
    """
    if video is not None:
        pixels, packet = video.pixels(), video.packet
        return new("std_msgs/msg/Header", stamp=packet.stamp, frame_id=packet.frame_id), pixels
    try:
        message = from_cdr(data, msgtype)
    except MessageError as error:
        raise ImageMessageError(str(error)) from error
    return message.header, decode_image(message) if msgtype == IMAGE else decode_compressed(message)


class VideoTopics:
    """The frames of video topics, for a loop over all messages of a bag.

    Args:
        streams: those of other types are ignored.
        start_ns, end_ns: of the loop, as ``Bag.messages`` takes them. Decoding begins at the keyframe before the start.
    """

    def __init__(
        self, bag: Bag, streams: Iterable[Stream], start_ns: int | None = None, end_ns: int | None = None
    ) -> None:
        self._frames = {
            stream: _frames(bag, stream, start_ns, end_ns)
            for stream in streams
            if stream[1] in VIDEO_TYPES.values()
        }

    def frame(self, message: Message) -> VideoFrame | None:
        """The frame of a message, if it is video. Call it for every message of the streams, in order."""
        frames = self._frames.get(message.connection.stream)
        return None if frames is None else next(frames, _UNREAD)


def _frames(bag: Bag, stream: Stream, start_ns: int | None, end_ns: int | None) -> Iterator[VideoFrame]:
    """Yield the outcome of each message; reads further ones as far as B-frames need them."""
    decoder, begin_ns = VideoDecoder(), start_ns
    wanted: deque[bool] = deque()
    if start_ns is not None:
        earlier = bag.newest_first(stream, start_ns)
        begin_ns = next((message.log_ns for message in earlier if _packet(message).keyframe), start_ns)

    def outcomes() -> Iterator[VideoFrame]:
        for message in bag.messages(begin_ns, end_ns, {stream}):
            wanted.append(start_ns is None or message.log_ns >= start_ns)
            yield from decoder.decode(_packet(message))
        yield from decoder.flush()

    complete: dict[int, VideoFrame] = {}
    number = 0
    for outcome in outcomes():
        complete[outcome.number] = outcome
        while number in complete:
            frame = complete.pop(number)
            number += 1
            if wanted.popleft():
                yield frame


def _packet(message: Message) -> VideoPacket:
    try:
        return VideoPacket.of(from_cdr(message.data, message.connection.msgtype))
    except MessageError as error:
        return VideoPacket(b"", "", None, "", problem=str(error))
