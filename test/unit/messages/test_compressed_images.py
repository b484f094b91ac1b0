# SPDX-License-Identifier: Apache-2.0
"""Compressed images of image_transport's publisher and of drivers are decoded to the camera's colours.

``published`` follows compressed_publisher.cpp of compressed_image_transport in noetic, humble and rolling (5.1): the
pixels passed to OpenCV, and the field ``format``.
"""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from canet_ros.image_transports import COMPRESSED_IMAGE, transport_content
from canet_ros.messages.images import ImageMessageError, decode_compressed, decode_image

HEIGHT, WIDTH = 48, 66
ALPHA = 77
COLOURS = ("rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16", "rgba16", "bgra16")
PLAIN = ("mono8", "mono16", "8UC1", "8UC3", "8UC4", "16UC3", "16UC4")
BAYER = tuple(f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16))
YUV = ("yuv422", "yuv422_yuy2")

# Stripes of red, green and blue reveal swapped channels or a lost mosaic.
SCENE = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
for stripe, channel in enumerate((2, 1, 0)):
    SCENE[:, stripe * 22 : stripe * 22 + 22, channel] = 180 + np.arange(22)
GREY = cv2.cvtColor(SCENE, cv2.COLOR_BGR2GRAY)


def bits_of(encoding: str) -> int:
    return 16 if "16" in encoding else 8


def message_pixels(encoding: str) -> np.ndarray:
    """Pixels of the camera's raw message, (H, W) or (H, W, channels)."""
    name = encoding.removeprefix("8UC").removeprefix("16UC")
    if encoding.startswith("bayer_"):
        pixels = np.empty((HEIGHT, WIDTH), np.uint8)
        for index, letter in enumerate(encoding[6:10]):
            row, column = divmod(index, 2)
            pixels[row::2, column::2] = SCENE[row::2, column::2, "bgr".index(letter)]
    elif encoding.startswith("mono") or name == "1":
        pixels = GREY
    else:
        pixels = SCENE[..., ::-1] if encoding.startswith("rgb") else SCENE
        if "a" in encoding or name == "4":
            pixels = np.dstack([pixels, np.full((HEIGHT, WIDTH, 1), ALPHA, np.uint8)])
    return pixels.astype(np.uint16) * 256 + 5 if bits_of(encoding) == 16 else np.ascontiguousarray(pixels)


def passed_to_encoder(encoding: str, target: str) -> np.ndarray:
    """Pixels that cv_bridge converts for the encoder; without a target, those of the message."""
    if not target or target == encoding:
        return message_pixels(encoding)
    pixels = GREY if target == "mono8" else SCENE
    if target == "mono8" and encoding.startswith("bayer_"):
        pixels = cv2.cvtColor(decode_image(raw(encoding)), cv2.COLOR_BGR2GRAY)
    if target.startswith("bgra"):
        pixels = np.dstack([pixels, np.full((HEIGHT, WIDTH, 1), ALPHA, np.uint8)])
    return pixels.astype(np.uint16) * 256 + 5 if bits_of(target) == 16 else pixels


def published(
    encoding: str, codec: str, release: str = "humble", compress_bayer: bool = False
) -> SimpleNamespace:
    colour = encoding in COLOURS or (encoding in YUV and release == "rolling")
    target = ""
    if codec == "jpeg":
        target = "bgr8" if colour else "" if release == "noetic" else "mono8"
        if compress_bayer and encoding.startswith("bayer_"):
            target = encoding
    elif codec == "png" and colour:
        alpha = "a" if release == "rolling" and "a" in encoding else ""
        target = f"bgr{alpha}{bits_of(encoding)}"
    pixels = passed_to_encoder(encoding, target)
    if codec == "jpeg" and pixels.dtype == np.uint16:  # imencode reduces to 8 bits
        pixels = (pixels >> 8).astype(np.uint8)
    data = cv2.imencode(f".{codec}", pixels)[1].tobytes()
    return SimpleNamespace(format=f"{encoding}; {codec} compressed {target}", data=data)


def raw(encoding: str) -> SimpleNamespace:
    pixels = message_pixels(encoding)
    return SimpleNamespace(
        encoding=encoding, height=HEIGHT, width=WIDTH, is_bigendian=0, step=pixels.nbytes // HEIGHT,
        data=pixels.tobytes(),
    )  # fmt: skip


def assert_shows(frame: np.ndarray, expected: np.ndarray, within: float) -> None:
    """Equal except for losses of JPEG and demosaicing at edges."""
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected.astype(int)).mean() <= within


@pytest.mark.parametrize("release", ["humble", "rolling"])
@pytest.mark.parametrize("codec", ["png", "tiff"])
@pytest.mark.parametrize("encoding", [*COLOURS, *PLAIN, *BAYER])
def test_lossless_codecs_match_the_raw_message(encoding: str, codec: str, release: str) -> None:
    frame = decode_compressed(published(encoding, codec, release))
    np.testing.assert_array_equal(frame, decode_image(raw(encoding)))
    grey = encoding.startswith("mono") or encoding.endswith("C1")
    assert_shows(frame, GREY if grey else SCENE, 6 if encoding in BAYER else 0)


@pytest.mark.parametrize("release", ["noetic", "humble", "rolling"])
@pytest.mark.parametrize("encoding", [*COLOURS, "mono8", "mono16"])
def test_jpeg_has_the_colours_of_the_camera(encoding: str, release: str) -> None:
    frame = decode_compressed(published(encoding, "jpeg", release))
    assert_shows(frame, GREY if encoding.startswith("mono") else SCENE, 12)


@pytest.mark.parametrize("encoding", BAYER)
def test_a_mosaic_in_a_jpeg_is_demosaiced_and_a_grey_image_stays_grey(encoding: str) -> None:
    for release, compress_bayer in (("noetic", False), ("rolling", True)):
        frame = decode_compressed(published(encoding, "jpeg", release, compress_bayer))
        assert_shows(frame, SCENE, 30)
        # Each stripe has its own strongest channel.
        assert [int(frame[24, 11 + 22 * stripe].argmax()) for stripe in range(3)] == [2, 1, 0]
    for release in ("humble", "rolling"):
        assert_shows(decode_compressed(published(encoding, "jpeg", release)), GREY, 12)


@pytest.mark.parametrize("encoding", YUV)
def test_yuv_is_colour_if_the_publisher_supports_it_and_else_grey(encoding: str) -> None:
    assert_shows(decode_compressed(published(encoding, "jpeg", "rolling")), SCENE, 12)
    assert_shows(decode_compressed(published(encoding, "png", "rolling")), SCENE, 0)
    assert_shows(decode_compressed(published(encoding, "jpeg", "humble")), GREY, 12)


@pytest.mark.parametrize(
    "format_text",
    [
        "png", "tiff", " PNG ", "", "rgb8", "rgb8; png compressed ", "rgb8; png", "RGB8;PNG compressed BGR8 ",
        "rgb8; png compressed; bgr8", "image/png", "camera; png compressed ", ";", "rgb8; tiff compressed bgr8",
    ],
)  # fmt: skip
def test_formats_of_other_senders_keep_the_colours_of_the_file(format_text: str) -> None:
    codec = "tiff" if "tiff" in format_text else "png"
    message = SimpleNamespace(format=format_text, data=cv2.imencode(f".{codec}", SCENE)[1].tobytes())
    np.testing.assert_array_equal(decode_compressed(message), SCENE)


@pytest.mark.parametrize("format_text", ["bgr8; png compressed rgb8", "rgb8; png RGB8", "rgba8; png rgba8"])
@pytest.mark.parametrize("channels", [3, 4])
def test_rgb_is_converted_if_the_format_names_it(format_text: str, channels: int) -> None:
    pixels = np.dstack([SCENE[..., ::-1], np.full((HEIGHT, WIDTH, 1), ALPHA, np.uint8)])[..., :channels]
    message = SimpleNamespace(format=format_text, data=cv2.imencode(".png", pixels)[1].tobytes())
    np.testing.assert_array_equal(decode_compressed(message), SCENE)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_tags_are_ignored(orientation: int) -> None:
    jpeg = cv2.imencode(".jpg", SCENE)[1].tobytes()
    tiff = (
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01"
        + bytes([0, orientation, 0, 0])
        + bytes(4)
    )
    exif = b"Exif\x00\x00" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    shown = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape != SCENE.shape or orientation == 3, "OpenCV does not read this tag"
    message = SimpleNamespace(format="rgb8; jpeg compressed bgr8", data=turned)
    frame = decode_compressed(message)
    np.testing.assert_array_equal(frame, cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    ("encoding", "codec", "kind"),
    [("16UC1", "png", np.uint16), ("16UC1", "tiff", np.uint16), ("32FC1", "tiff", np.float32)],
)
def test_depth_is_refused_with_a_hint(encoding: str, codec: str, kind: type) -> None:
    data = cv2.imencode(f".{codec}", np.ones((4, 6), kind))[1].tobytes()
    compressed = SimpleNamespace(format=f"{encoding}; {codec} compressed ", data=data)
    image = SimpleNamespace(encoding=encoding, height=4, width=6, is_bigendian=0, step=24, data=bytes(96))
    for read, message in ((decode_compressed, compressed), (decode_image, image)):
        with pytest.raises(ImageMessageError, match=f"{encoding} is an encoding of depth .* as depth_topics"):
            read(message)


@pytest.mark.parametrize(
    ("msgtype", "topic", "format_text", "words"),
    [
        ("theora_image_transport/msg/Packet", "/cam/image_raw/theora", "", "video"),
        ("point_cloud_interfaces/msg/CompressedPointCloud2", "/points/draco", "", "point cloud"),
        (COMPRESSED_IMAGE, "/cam/image_raw/zstd", "", "zstd_image_transport"),
        (COMPRESSED_IMAGE, "/elsewhere", "zstd", "zstd"),
        (COMPRESSED_IMAGE, "/cam/image_raw/compressedDepth", "", "depth"),
        (COMPRESSED_IMAGE, "/depth", "mono16; compressedDepth rvl", "depth"),
        (COMPRESSED_IMAGE, "/depth/compressed", "16UC1; png compressed ", "depth, not camera images (16UC1)"),
        (COMPRESSED_IMAGE, "/cam/compressed", "bgr8; H265", "video"),
        ("sensor_msgs/msg/Image", "/zstd", "", ""),
        ("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "/cam/image_raw/ffmpeg", "", ""),
        (COMPRESSED_IMAGE, "/cam/image_raw/compressed", "", ""),
        (COMPRESSED_IMAGE, "/cam/zstd", "jpeg", ""),
        (COMPRESSED_IMAGE, "/cam", "mono16; png compressed ", ""),
    ],
)
def test_transports_without_images_are_named(msgtype: str, topic: str, format_text: str, words: str) -> None:
    content = transport_content(msgtype, topic, format_text)
    assert words in content
    assert bool(words) == bool(content)
