# SPDX-License-Identifier: Apache-2.0
"""Messages that nobody would send by mistake: each gives the image that it holds or an ImageMessageError, and soon.

A few hundred examples of each kind here; CANET_TEST_EXAMPLES=100000 makes more.
"""

from __future__ import annotations

import array
import os
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from canet_ros.messages.camera_info import scaled_camera_info
from canet_ros.messages.images import ENCODINGS, ImageMessageError, decode_compressed, decode_image

# Small, so that a claim over it is met often.
MAX_PIXELS = 1_000_000
LONGEST_S = 1.0  # of computing: on a busy machine a process may wait longer for its turn
UINT32 = 2**32 - 1
SETTINGS = settings(
    max_examples=int(os.environ.get("CANET_TEST_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NOISE = np.random.default_rng(5).integers(0, 256, 4096, dtype=np.uint8).tobytes()
PICTURE = np.random.default_rng(7).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SEEDS = [
    cv2.imencode(ending, picture, options)[1].tobytes()
    for ending, options in (
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", []),
        (".tiff", []),
    )
    for picture in (PICTURE, PICTURE[..., 0])
]
FORMATS = [
    "jpeg",
    "",
    "rgb8; jpeg compressed bgr8",
    "bayer_rggb8; png compressed ",
    "16UC1; compressedDepth png",
]


def check_picture(message: Image | CompressedImage) -> None:
    """It is an image, or refused."""
    convert = decode_image if isinstance(message, Image) else decode_compressed
    start_s = time.process_time()
    try:
        frame = convert(message, MAX_PIXELS)
    except ImageMessageError:
        frame = None
    assert time.process_time() - start_s < LONGEST_S
    if frame is not None:
        assert frame.dtype == np.uint8
        assert frame.ndim == 2 or frame.shape[2:] == (3,)
        assert 0 < frame.shape[0] * frame.shape[1] <= MAX_PIXELS
        if isinstance(message, Image):
            assert frame.shape[:2] == (message.height, message.width)


sides = st.one_of(st.integers(0, 64), st.integers(0, UINT32), st.sampled_from([65535, 2**16, 2**31, UINT32]))


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Half of them fit in all but one field."""
    encoding = draw(st.one_of(st.sampled_from(ENCODINGS), st.text(max_size=80)))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pixel_bytes = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    step = width * pixel_bytes + draw(st.sampled_from([0, 0, 0, 1, 7]))
    rows = draw(st.sampled_from([height, height, height * 3 // 2, height * 3]))
    length = min(step * rows, 100_000) + draw(st.sampled_from([0, 0, 0, -1, 1, 1000]))
    fields = {"width": width, "height": height, "step": step}
    if draw(st.booleans()):
        fields[draw(st.sampled_from(sorted(fields)))] = draw(sides)
    message = Image(encoding=encoding, is_bigendian=draw(st.integers(0, 255)), **fields)
    message.data = array.array("B", (NOISE * (length // len(NOISE) + 1))[: max(0, length)])
    return message


@given(images())
@SETTINGS
def test_images(message: Image) -> None:
    check_picture(message)


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1))
        words = st.sampled_from([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\xff\xd9"])
        removed = draw(st.sampled_from([0, 1, 4, 20, len(data)]))
        data[at : at + removed] = draw(st.one_of(st.binary(max_size=20), words))
        data = data or bytearray(b"\xff")
    return bytes(data)


@given(
    st.one_of(broken_files(), st.binary(max_size=400)),
    st.one_of(st.sampled_from(FORMATS), st.text(max_size=80)),
)
@SETTINGS
def test_compressed_images(data: bytes, format_: str) -> None:
    check_picture(CompressedImage(data=array.array("B", data), format=format_))


any_double = st.floats(width=64)


@given(
    st.builds(
        CameraInfo,
        width=sides,
        height=sides,
        binning_x=sides,
        binning_y=sides,
        k=st.lists(any_double, min_size=9, max_size=9),
        p=st.lists(any_double, min_size=12, max_size=12),
        d=st.lists(any_double, max_size=12),
        roi=st.builds(RegionOfInterest, x_offset=sides, y_offset=sides, width=sides, height=sides),
    ),
    st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
)
@SETTINGS
def test_camera_infos(info: CameraInfo, size: tuple[int, int]) -> None:
    """It is scaled to the size, or refused."""
    try:
        scaled = scaled_camera_info(info, size)
    except ImageMessageError:
        return
    roi = scaled.roi
    # The middleware would cut it to 32 bits without a word.
    for value in (scaled.width, scaled.height, roi.x_offset, roi.y_offset, roi.width, roi.height):
        assert 0 <= value <= UINT32
    if (info.roi.width, info.binning_x) == (0, 0):
        assert scaled.width == size[0]
