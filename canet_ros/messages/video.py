# SPDX-License-Identifier: Apache-2.0
"""Decodes video messages, ``ffmpeg_image_transport_msgs/FFMPEGPacket`` and ``foxglove_msgs/CompressedVideo``."""

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

# FFmpeg's decoders by words in the names of codecs and encoders (libx264, hevc_nvenc). Its own av1 needs a GPU.
_DECODERS = {"264|avc": "h264", "265|hevc": "hevc", "av1": "libdav1d", "vp9": "vp9"}
_MAX_DELAY = 32  # packets; H.264 and H.265 reorder at most 16 images
_HEADER_BYTES = 64  # of a unit (NAL): a parameter set up to what is read of it, and a slice's header
_STARTING = "the stream begins between keyframes"
# Profiles of H.264 whose parameter sets describe the chroma format.
_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def video_problem() -> str:
    """Why no video can be decoded, to follow "holds"; empty: it can."""
    return "" if has_pyav() else f"video, which needs PyAV: {pip_install('av')}"


@dataclass(frozen=True)
class VideoPacket:
    """Contents of a message.

    Attributes:
        encoding: ``h264``, ``libx264``, ``hevc_nvenc;yuv420p;bgr8;bgr8``: the first word names codec or encoder.
        stamp: ``builtin_interfaces/Time`` of the image.
        flagged: the encoder calls it a keyframe.
        problem: why the message has no contents; empty: it has.
    """

    data: bytes
    encoding: str
    stamp: Any
    frame_id: str
    flagged: bool = False
    problem: str = ""

    @classmethod
    def of(cls, message: Any) -> VideoPacket:
        """Of an object with the fields of either message, from rclpy or rosbags."""
        data = bytes(message.data)
        if hasattr(message, "timestamp"):  # CompressedVideo
            return cls(data, message.format, message.timestamp, message.frame_id)
        header = message.header
        return cls(data, message.encoding, header.stamp, header.frame_id, bool(message.flags & 1))

    @property
    def decoder(self) -> str:
        """Name of FFmpeg's decoder; that of the codec, if it is not a common one."""
        codec = self.encoding.partition(";")[0].strip().lower()
        return next((name for words, name in _DECODERS.items() if re.search(words, codec)), codec)

    @property
    def keyframe(self) -> bool:
        """Whether decoding can begin here."""
        if self.flagged or not self.data:
            return self.flagged
        if self.decoder == "h264":
            return any(unit[0] & 31 == 5 for unit in _units(self.data))
        if self.decoder == "hevc":
            return any(16 <= unit[0] >> 1 & 63 <= 21 for unit in _units(self.data))
        if self.decoder == "vp9":
            return self.data[0] & 0x0C == 0  # neither show_existing_frame nor an inter frame
        return self.decoder == "libdav1d" and self.data[2:3] == b"\x0a"  # a sequence header


@dataclass(frozen=True)
class VideoFrame:
    """Outcome of one packet.

    Attributes:
        number: of the packet in its stream, from 0.
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
    """Decodes the packets of one stream; each results in exactly one ``VideoFrame``.

    With B-frames, the frames of some packets follow those of later ones. After a packet that is damaged or lost,
    decoding resumes at the next keyframe. A lost packet is noticed in H.264 by its frame numbers and in H.265 by its
    references; in other codecs only by ``lose``.
    """

    def __init__(self) -> None:
        self._encoding: str | None = None
        self._context: Any = None
        self._no_context = ""
        self._pending: dict[int, VideoPacket] = {}
        self._count = 0
        self._frame_numbers = _FrameNumbers()
        self._waiting = _STARTING  # for a keyframe, and why; empty: not

    def decode(self, packet: VideoPacket) -> list[VideoFrame]:
        """Decode a packet; returns the frames that are complete now, of this packet or of earlier ones."""
        frames: list[VideoFrame] = []
        if packet.encoding != self._encoding and not packet.problem:
            if self._encoding is not None:
                frames += self.flush("the encoding changed")
            self._open(packet)
        number, self._count = self._count, self._count + 1
        if self._no_context:
            return [*frames, VideoFrame(number, packet, problem=self._no_context)]
        if packet.decoder == "h264" and self._frame_numbers.gap_before(packet.data):
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
        return frames + self._without_image(before=number - _MAX_DELAY)

    def lose(self) -> list[VideoFrame]:
        """The packet before the next one was lost; returns as ``flush``."""
        return [] if self._waiting else self.flush("a packet was lost")

    def flush(self, reason: str = "the stream was interrupted") -> list[VideoFrame]:
        """The frames of all packets so far. Decoding resumes at a keyframe."""
        frames: list[VideoFrame] = []
        if self._pending:
            with contextlib.suppress(*_errors()):
                frames += self._decoded(None, 0)
        if self._context is not None:
            self._context.flush_buffers()
        self._frame_numbers.last = None
        self._waiting = reason
        return frames + self._without_image(before=self._count)

    def _open(self, packet: VideoPacket) -> None:
        import av

        self._encoding, self._context, self._no_context = packet.encoding, None, ""
        if set(packet.encoding.split(";")) & set(DEPTH_ENCODINGS):
            self._no_context = f"depth, not camera images ({packet.encoding[:64]})"
            return
        try:
            self._context = av.CodecContext.create(packet.decoder, "r")
        except ValueError:
            wrong = f"PyAV {av.__version__} cannot decode {packet.encoding[:64]!r}"
            self._no_context = f"{wrong}; it decodes h264, h265, vp9 and av1"
            return
        # An image that refers to a missing one is an error, not shown with artefacts.
        options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
        delay = {"max_frame_delay": "1"} if packet.decoder == "libdav1d" else {}
        self._context.options = {**options, **delay}

    def _decoded(self, data: bytes | None, number: int) -> Iterator[VideoFrame]:
        import av

        packet = None if data is None else av.Packet(data)
        if packet is not None:
            packet.pts = number  # the decoder hands it to the frame
        for decoded in self._context.decode(packet):
            if decoded.pts in self._pending:
                yield VideoFrame(decoded.pts, self._pending.pop(decoded.pts), decoded)

    def _without_image(self, before: int) -> list[VideoFrame]:
        numbers = [number for number in self._pending if number < before]
        problem = "the decoder returned no image"
        return [VideoFrame(number, self._pending.pop(number), problem=problem) for number in numbers]


class _FrameNumbers:
    """Finds lost packets of H.264 by frame_num; FFmpeg conceals them.

    Attributes:
        last: that of the last reference frame; None: decoding has not begun.
    """

    def __init__(self) -> None:
        self.last: int | None = None
        self._length = 0  # bits of frame_num; 0: unknown, or numbers may be missing

    def gap_before(self, data: bytes) -> bool:
        """Whether reference frames are missing between the packet before and this one."""
        for unit in _units(data):
            kind, bits = unit[0] & 31, _Bits(unit[1:])
            if kind == 7:
                self._read_parameters(bits)
            elif kind in (1, 5) and self._length:
                bits.golombs(3)  # first macroblock, type, parameter set
                number, last = bits.take(self._length), self.last
                if unit[0] & 0x60:  # a reference frame
                    self.last = number
                return kind == 1 and last is not None and number not in (last, (last + 1) % 2**self._length)
        return False

    def _read_parameters(self, bits: _Bits) -> None:
        self._length = 0
        profile = bits.take(24) >> 16
        bits.golombs(1)
        if profile in _WITH_CHROMA:
            if bits.golombs(1) == 3:
                bits.take(1)
            bits.golombs(2)
            if bits.take(2) & 1:  # scaling lists; encoders of cameras write none
                return
        length, order = bits.golombs(1) + 4, bits.golombs(1)
        bits.golombs(2 if order == 0 else 1)
        if order != 1 and not bits.take(1):  # gaps_in_frame_num_allowed
            self._length = length


class _Bits:
    """Reads the header of a unit of H.264."""

    def __init__(self, data: bytes) -> None:
        unescaped = data.replace(b"\0\0\3", b"\0\0") + b"\0\0\0\0\1\0\0\0\0"  # ends any number
        self._text = "".join(f"{byte:08b}" for byte in unescaped)
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._text[self._at - count : self._at] or "0", 2)

    def golombs(self, count: int) -> int:
        """Read Exp-Golomb numbers; returns the last one."""
        value = 0
        for _ in range(count):
            zeros = max(0, self._text.find("1", self._at) - self._at)
            value = self.take(2 * zeros + 1) - 1
        return value


def _units(data: bytes) -> Iterator[bytes]:
    """The first bytes of each unit (NAL) of H.264 or H.265 in Annex B."""
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        yield data[at + 3 : at + 3 + _HEADER_BYTES]
        at = data.find(b"\0\0\1", at + 3)


def _errors() -> tuple[type[Exception], ...]:
    import av

    return ValueError, av.FFmpegError
