# SPDX-License-Identifier: Apache-2.0
"""Decodes video messages, ``ffmpeg_image_transport_msgs/FFMPEGPacket`` and ``foxglove_msgs/CompressedVideo``.

A message is any object with the fields of its definition, from rclpy or rosbags.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from canet_ros.hints import pip_install
from canet_ros.image_transports import DEPTH_ENCODINGS
from canet_ros.messages.images import MAX_PIXELS, ImageMessageError, check_size
from canet_ros.opencv import Pixels
from canet_ros.pipeline.video_file import has_pyav

# FFmpeg's decoders, by a word in the names of codecs and encoders (libx264, hevc_nvenc). FFmpeg's own AV1 decoder
# needs a GPU.
_DECODERS = {
    r"264|avc": "h264",
    r"265|hevc": "hevc",
    r"av1": "libdav1d",
    r"vp9": "vp9",
    r"vp8|vpx": "vp8",
}
_STARTING = "the stream begins between keyframes"
_MAX_DELAY = 32  # packets; H.264 and H.265 reorder at most 16 frames
_HEADER_BYTES = (
    64  # of a unit of H.264; SPS up to the length of frame_num, and the beginning of a slice's header
)


def video_problem() -> str:
    """Why no video can be decoded, to follow "holds"; empty: it can."""
    return "" if has_pyav() else f"video, which needs PyAV: {pip_install('av')}"


@dataclass(frozen=True)
class VideoPacket:
    """Contents of a message.

    Attributes:
        encoding: ``h264``, ``libx264``, ``hevc_nvenc;yuv420p;bgr8;bgr8``: the first word names the codec.
        stamp: ``builtin_interfaces/Time`` of the image.
    """

    data: bytes
    encoding: str
    stamp: Any
    frame_id: str
    flagged: bool = False  # as a keyframe, by the encoder
    problem: str = ""  # why the message has no contents

    @classmethod
    def of(cls, message: Any) -> VideoPacket:
        data = bytes(message.data)
        if hasattr(message, "timestamp"):  # CompressedVideo
            return cls(data, message.format, message.timestamp, message.frame_id)
        header = message.header
        return cls(data, message.encoding, header.stamp, header.frame_id, bool(message.flags & 1))

    @property
    def keyframe(self) -> bool:
        """Whether decoding can begin here."""
        decoder, data = decoder_name(self.encoding), self.data
        if decoder == "h264":
            return self.flagged or any(unit[0] & 31 == 5 for unit in _units(data))
        if decoder == "hevc":
            return self.flagged or any(16 <= unit[0] >> 1 & 63 <= 21 for unit in _units(data))
        if decoder == "vp9":
            return data[:1] != b"" and data[0] & 0x0C == 0  # show_existing_frame, frame_type
        if decoder == "libdav1d":  # a sequence header after the temporal delimiter
            return data[2:3] != b"" and data[2] >> 3 & 15 == 1
        return self.flagged or (decoder == "vp8" and data[:1] != b"" and data[0] & 1 == 0)


@dataclass(frozen=True)
class VideoFrame:
    """Outcome of one packet.

    Attributes:
        number: of the packet, from 0.
        problem: why there is no image; empty: there is one.
        starting: the packet precedes the first keyframe, which is not a fault.
    """

    number: int
    packet: VideoPacket
    decoded: Any = None
    problem: str = ""
    starting: bool = False

    def pixels(self, max_pixels: int = MAX_PIXELS) -> Pixels:
        """The image, (H, W, 3) BGR uint8.

        Raises:
            ImageMessageError: there is none, or it has more than ``max_pixels``.
        """
        if self.problem:
            raise ImageMessageError(self.problem)
        check_size(self.decoded.width, self.decoded.height, max_pixels)
        pixels: Pixels = self.decoded.to_ndarray(format="bgr24")
        return pixels


class VideoDecoder:
    """Decodes the packets of one stream. Each packet results in exactly one ``VideoFrame``.

    With B-frames, the frames of some packets follow those of later ones. After a packet that is damaged or lost,
    decoding resumes at the next keyframe. A lost packet is noticed in H.264 by its frame numbers and in H.265 by its
    references; in other codecs only by ``lose``.
    """

    def __init__(self) -> None:
        self._encoding: str | None = None
        self._context: Any = None
        self._pending: dict[int, VideoPacket] = {}
        self._count = 0
        self._frame_numbers = _FrameNumbers()
        self._waiting = _STARTING  # for a keyframe, and why; empty: not

    def decode(self, packet: VideoPacket) -> list[VideoFrame]:
        """Decode a packet; returns the frames that are complete now, of this packet or of earlier ones."""
        frames = []
        if packet.encoding != self._encoding and not packet.problem:
            if self._encoding is not None:
                frames += self.flush("the encoding changed")
            self._encoding, self._context = packet.encoding, _context(packet.encoding)
        number, self._count = self._count, self._count + 1
        if isinstance(self._context, str):
            return [*frames, VideoFrame(number, packet, problem=self._context)]
        if self._frame_numbers.gap_before(packet):
            frames += self.flush("a packet was lost")
        if self._waiting and not packet.keyframe:
            problem = f"waiting for a keyframe: {self._waiting}"
            return [*frames, VideoFrame(number, packet, problem=problem, starting=self._waiting == _STARTING)]
        self._waiting = ""
        self._pending[number] = packet
        try:
            if packet.problem or not packet.data:
                raise ValueError(packet.problem or "it is empty")
            frames += self._decoded(packet.data, number)
        except _errors() as error:
            text = f"the packet cannot be decoded: {getattr(error, 'strerror', None) or error}"
            del self._pending[number]
            return [*frames, *self.flush("a packet is damaged"), VideoFrame(number, packet, problem=text)]
        late = [other for other in self._pending if other <= number - _MAX_DELAY]
        return [*frames, *(self._without_image(other) for other in late)]

    def lose(self) -> list[VideoFrame]:
        """The packet before the next one was lost; returns as ``flush``."""
        return [] if self._waiting else self.flush("a packet was lost")

    def flush(self, reason: str = "the stream was interrupted") -> list[VideoFrame]:
        """The frames of all packets so far. Decoding resumes at a keyframe."""
        frames: list[VideoFrame] = []
        if self._pending:
            with contextlib.suppress(*_errors()):
                frames += self._decoded(None, 0)
            frames += [self._without_image(number) for number in list(self._pending)]
        if self._context is not None and not isinstance(self._context, str):
            self._context.flush_buffers()
        self._frame_numbers.begin()
        self._waiting = reason
        return frames

    def _decoded(self, data: bytes | None, number: int) -> Iterator[VideoFrame]:
        import av

        packet = None if data is None else av.Packet(data)
        if packet is not None:
            packet.pts = number  # the decoder hands it to the frame
        for decoded in self._context.decode(packet):
            if decoded.pts in self._pending:
                yield VideoFrame(decoded.pts, self._pending.pop(decoded.pts), decoded)

    def _without_image(self, number: int) -> VideoFrame:
        return VideoFrame(number, self._pending.pop(number), problem="the decoder returned no image")


class _FrameNumbers:
    """Finds lost packets of H.264 by frame_num, which FFmpeg conceals."""

    def __init__(self) -> None:
        self._bits = 0  # length of frame_num; 0: unknown
        self._last: int | None = None

    def begin(self) -> None:
        self._last = None

    def gap_before(self, packet: VideoPacket) -> bool:
        """Whether reference frames are missing between the packet before and this one."""
        if decoder_name(packet.encoding) != "h264":
            return False
        for unit in _units(packet.data):
            kind, bits = unit[0] & 31, _Bits(unit[1:])
            if kind == 7:
                self._bits = _frame_num_bits(bits)
            elif kind in (1, 5) and self._bits:
                for _ in range(3):  # first macroblock, type, picture parameter set
                    bits.golomb()
                number, last = bits.take(self._bits), self._last
                if unit[0] & 0x60:  # a reference frame
                    self._last = number
                return kind == 1 and last is not None and number not in (last, (last + 1) % 2**self._bits)
        return False


def _frame_num_bits(bits: _Bits) -> int:
    """Length of frame_num in a sequence parameter set of H.264; 0: unknown, or numbers may be missing."""
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        if bits.golomb() == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):  # scaling lists; encoders of cameras have none
            return 0
    length, order = bits.golomb() + 4, bits.golomb()
    if order == 1:
        return 0
    if order == 0:
        bits.golomb()
    bits.golomb()
    return 0 if bits.take(1) else length  # gaps_in_frame_num_allowed


class _Bits:
    """Reads a unit's header, as H.264 codes it. Behind its end are zeros."""

    def __init__(self, data: bytes) -> None:
        self._text = (
            "".join(f"{byte:08b}" for byte in data.replace(b"\0\0\3", b"\0\0")) + "0" * 64 + "1" + "0" * 64
        )
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._text[self._at - count : self._at] or "0", 2)

    def golomb(self) -> int:
        zeros = max(0, self._text.find("1", self._at) - self._at)
        return self.take(2 * zeros + 1) - 1


def _units(data: bytes) -> Iterator[bytes]:
    """The first bytes of each unit (NAL) of H.264 or H.265 in Annex B."""
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        yield data[at + 3 : at + 3 + _HEADER_BYTES]
        at = data.find(b"\0\0\1", at + 3)


def decoder_name(encoding: str) -> str:
    """FFmpeg's decoder for an encoding; the codec's own name, if it is another."""
    codec = encoding.partition(";")[0].strip().lower()
    return next((decoder for words, decoder in _DECODERS.items() if re.search(words, codec)), codec)


def _errors() -> tuple[type[Exception], ...]:
    import av

    return ValueError, av.FFmpegError


def _context(encoding: str) -> Any:
    """A decoder, or why there is none."""
    import av

    if set(encoding.split(";")) & set(DEPTH_ENCODINGS):
        return f"depth, not camera images ({encoding[:64]})"
    try:
        context = av.CodecContext.create(decoder_name(encoding), "r")
    except ValueError:
        return f"PyAV {av.__version__} cannot decode {encoding[:64]!r}; it decodes h264, h265, vp9 and av1"
    # An image that refers to a missing one is an error, not shown with artefacts.
    context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
    if context.name == "libdav1d":
        context.options = {**context.options, "max_frame_delay": "1"}
    return context
