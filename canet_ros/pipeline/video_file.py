# SPDX-License-Identifier: Apache-2.0
"""Writes video files."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from canet_ros.files import atomic_write
from canet_ros.hints import pip_install
from canet_ros.opencv import Pixels, resize

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
AppendFrame = Callable[[Pixels, float], None]
_TICKS_PER_S = 90_000


def has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None


def require_pyav(path: Path) -> None:
    """Raise ValueError unless ``path`` has the suffix of a video and PyAV is installed."""
    if path.suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"{path}: give the video a name that ends in {', '.join(VIDEO_SUFFIXES)}")
    if not has_pyav():
        raise ValueError(f"videos need PyAV: {pip_install('av')}")


def video_file(path: Path, rate_hz: float) -> contextlib.AbstractContextManager[AppendFrame]:
    """``h264_file`` where PyAV is installed; else MPEG-4, which browsers do not play, by OpenCV, at this rate."""
    return h264_file(path, rate_hz) if has_pyav() else _mpeg4_file(path, rate_hz)


@contextlib.contextmanager
def h264_file(path: Path, rate_hz: float = 0.0) -> Iterator[AppendFrame]:
    """Write a video atomically with PyAV, in H.264.

    Args:
        rate_hz: of the frames, for the duration of the last one; 0: not constant.

    Yields:
        Appends an image, (H, W, 3) BGR uint8, at a time in s, which should increase. All images take the first one's
        size, cut to even sides.

    Raises:
        OSError: the file cannot be written.
    """
    import av

    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        size: tuple[int, int] | None = None
        last = -1

        def mux(frame: Any) -> None:
            for packet in stream.encode(frame):
                if rate_hz:
                    packet.duration = round(_TICKS_PER_S / rate_hz)
                container.mux(packet)

        def append(image: Pixels, time_s: float) -> None:
            nonlocal size, last
            if size is None:
                size = stream.width, stream.height = image.shape[1] // 2 * 2, image.shape[0] // 2 * 2
            pixels = image[: size[1], : size[0]]
            if pixels.shape[1::-1] != size:
                pixels = resize(image, size)
            last = max(round(time_s * _TICKS_PER_S), last + 1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "bgr24")
            frame.pts, frame.time_base = last, Fraction(1, _TICKS_PER_S)
            mux(frame)

        yield append
        mux(None)


@contextlib.contextmanager
def _mpeg4_file(path: Path, rate_hz: float) -> Iterator[AppendFrame]:
    with atomic_write(path) as temporary:
        writer = cv2.VideoWriter()
        codec = cv2.VideoWriter.fourcc(*"mp4v")

        def append(image: Pixels, time_s: float) -> None:
            if not writer.isOpened() and not writer.open(str(temporary), codec, rate_hz, image.shape[1::-1]):
                raise OSError(f"cannot write {path}: OpenCV cannot encode MPEG-4: {pip_install('av')}")
            writer.write(image)

        try:
            yield append
        finally:
            writer.release()
