# SPDX-License-Identifier: Apache-2.0
"""Camera messages to frames and back: every encoding against known pixels, every fault by its message.

No DDS is needed. What other programs make of our messages is not tested here.
"""

from __future__ import annotations

import array
import sys
import types

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg")
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from canet_ros.messages.camera_info import scaled_camera_info
from canet_ros.messages.images import ENCODINGS, ImageMessageError, decode_compressed, decode_image
from canet_ros.ros.image_conversion import compressed_message, image_message

HEIGHT, WIDTH = 6, 8
BGR = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = BGR[..., 1].copy()
ALPHA = np.full((HEIGHT, WIDTH, 1), 77, np.uint8)
GREEN_BGR = (40, 180, 90)


def message_of(pixels, encoding, padding=0, is_bigendian=0, height=None, width=WIDTH):
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.hstack([rows, np.full((len(rows), padding), 255, np.uint8)])
    message = Image(encoding=encoding, height=height or len(rows), width=width, step=rows.shape[1])
    message.is_bigendian = is_bigendian
    message.data = array.array("B", rows.tobytes())
    return message


def flat(color_bgr):
    return np.full((HEIGHT, WIDTH, 3), color_bgr, np.uint8)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("names", "pixels", "expected"),
    [
        ("bgr8 8UC3 bgr16 16UC3", BGR, BGR),
        ("rgb8 rgb16", BGR[..., ::-1], BGR),
        ("bgra8 8UC4 bgra16 16UC4", np.dstack([BGR, ALPHA]), BGR),
        ("rgba8 rgba16", np.dstack([BGR[..., ::-1], ALPHA]), BGR),
        ("mono8 8UC1 mono16", GREY, GREY),
    ],
)
def test_encodings_of_8_bits_and_the_high_byte_of_16(names, pixels, expected, order, padding):
    for encoding in names.split():
        words = (pixels.astype(np.uint16) * 256 + 19).astype(f"{order}u2") if "16" in encoding else pixels
        frame = decode_image(message_of(words, encoding, padding, is_bigendian=order == ">"))
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(("encoding", "pixels"), [("bgr8", BGR), ("mono8", GREY)])
def test_bgr8_and_mono8_are_not_copied(encoding, pixels, padding):
    message = message_of(pixels, encoding, padding)
    frame = decode_image(message)
    assert np.shares_memory(frame, np.frombuffer(message.data, np.uint8))
    assert cv2.resize(frame, (4, 3)).shape[:2] == (3, 4)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colour_they_were_made_of(pattern, bits):
    blue, green, red = GREEN_BGR
    value = {"r": red, "g": green, "b": blue}
    tile = np.array(
        [[value[pattern[0]], value[pattern[1]]], [value[pattern[2]], value[pattern[3]]]], np.uint8
    )
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))
    pixels = mosaic if bits == 8 else mosaic.astype("<u2") * 256
    frame = decode_image(message_of(pixels, f"bayer_{pattern}{bits}", padding=4))
    np.testing.assert_array_equal(frame, flat(GREEN_BGR))


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21", "nv24"])
def test_yuv_encodings_give_the_colour_they_were_made_of(encoding, padding):
    y, u, v = 134, 80, 98  # of GREEN_BGR in ITU-R BT.601, studio range
    if encoding in ("uyvy", "yuv422"):
        rows = np.tile(np.array([u, y, v, y], np.uint8), (HEIGHT, WIDTH // 2))
    elif encoding in ("yuyv", "yuv422_yuy2"):
        rows = np.tile(np.array([y, u, y, v], np.uint8), (HEIGHT, WIDTH // 2))
    else:
        chroma_rows = 2 * HEIGHT if encoding == "nv24" else HEIGHT // 2
        pair = (v, u) if encoding == "nv21" else (u, v)
        chroma = np.tile(np.array(pair, np.uint8), (chroma_rows, WIDTH // 2))
        rows = np.vstack([np.full((HEIGHT, WIDTH), y, np.uint8), chroma])
    message = message_of(rows, encoding, 0 if encoding == "nv24" else padding, height=HEIGHT)
    frame = decode_image(message)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(frame.astype(int), flat(GREEN_BGR).astype(int), atol=3)


def broken(**changes):
    message = message_of(BGR, "bgr8")
    for field, value in changes.items():
        setattr(message, field, value)
    return message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (broken(encoding="bgr9"), ["'bgr9'", "bgr8", "nv12"]),
        (broken(encoding="32FC1"), ["32FC1", "depth_topics"]),
        (broken(encoding="16UC1"), ["16UC1", "depth_topics"]),
        (broken(width=0), ["zero size", "width 0"]),
        (broken(step=23, data=array.array("B", bytes(145))), ["step 23", "data of 145", "24"]),
        # Rows of another size: 7 rows of 28 and 6 of 24 bytes, and much more than padding.
        (broken(data=array.array("B", bytes(5005))), ["data of 5005", "144"]),
        (broken(height=2**31), ["data of 144"]),
        (message_of(GREY[:, :7], "uyvy", padding=20, width=7), ["even width", "7"]),
        (message_of(GREY, "nv12", height=5), ["even height", "5"]),
        (message_of(GREY, "nv24", height=6), ["data of 48", "144"]),
    ],
)
def test_errors_name_the_fault_and_the_expectation(message, words):
    with pytest.raises(ImageMessageError) as caught:
        decode_image(message)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("step", [0, WIDTH, 3 * WIDTH - 1, 3 * WIDTH + 6, 3 * WIDTH * HEIGHT, 2**31])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [("bgr8", BGR, BGR), ("mono8", GREY, GREY), ("rgb16", (BGR[..., ::-1].astype("<u2") * 256), BGR)],
)
def test_a_wrong_step_does_no_harm_where_the_data_are_rows_without_padding(step, encoding, pixels, expected):
    message = message_of(pixels, encoding)
    message.step = step
    np.testing.assert_array_equal(decode_image(message), expected)


def test_nv24_with_padding_and_with_a_wrong_step():
    chroma = np.random.default_rng(4).integers(0, 256, (HEIGHT, 2 * WIDTH), dtype=np.uint8)
    whole = message_of(np.vstack([GREY, chroma.reshape(-1, WIDTH)]), "nv24", height=HEIGHT)
    frame = decode_image(whole)
    whole.step = 0
    np.testing.assert_array_equal(decode_image(whole), frame)
    planes = np.pad(GREY, ((0, 0), (0, 5))), np.pad(chroma, ((0, 0), (0, 10)))
    whole.step = WIDTH + 5
    whole.data = array.array("B", b"".join(plane.tobytes() for plane in planes))
    np.testing.assert_array_equal(decode_image(whole), frame)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("behind", [-6, 1, 4000, 10 * (3 * WIDTH), 10 * (3 * WIDTH + 6)])
def test_padding_of_the_last_row_may_be_missing_and_more_is_left_out(padding, behind):
    message = message_of(BGR, "bgr8", padding)
    if behind > 0:
        message.data.frombytes(bytes(behind))
    elif padding:
        del message.data[behind:]
    frame = decode_image(message)
    np.testing.assert_array_equal(frame, BGR)
    assert np.shares_memory(frame, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("pixels", "encoding"), [(BGR, "rgb8"), (GREY, "mono8"), (BGR[:, ::2], "bgr8"), (BGR[1:2, :1], "bgr8")]
)
def test_messages_carry_pixels_and_header(pixels, encoding):
    header = Header(frame_id="front_camera")
    header.stamp.sec, header.stamp.nanosec = 12, 34
    message = image_message(pixels, encoding, header)
    assert isinstance(message.data, array.array)
    assert message.data.typecode == "B"
    assert message.header == header
    assert (message.height, message.width, message.encoding) == (*pixels.shape[:2], encoding)
    assert message.step == message.width * (1 if encoding == "mono8" else 3)
    back = decode_image(message)
    np.testing.assert_array_equal(back, pixels[..., ::-1] if encoding == "rgb8" else pixels)


@pytest.mark.parametrize(
    ("encoding", "codec", "expected_format"),
    [
        ("rgb8", "jpeg", "rgb8; jpeg compressed bgr8"),
        ("mono8", "jpeg", "mono8; jpeg compressed mono8"),
        ("bgr8", "png", "bgr8; png compressed bgr8"),
        ("mono8", "png", "mono8; png compressed "),
    ],
)
def test_compressed_messages_are_image_transports(encoding, codec, expected_format):
    smooth = cv2.resize(BGR, (64, 48), interpolation=cv2.INTER_CUBIC)
    picture = smooth[..., 1].copy() if encoding == "mono8" else smooth
    pixels = picture[..., ::-1] if encoding == "rgb8" else picture
    message = compressed_message(pixels, encoding, Header(frame_id="front"), codec, jpeg_quality=95)
    assert message.format == expected_format
    assert message.header.frame_id == "front"
    assert isinstance(message.data, array.array)
    back = decode_compressed(message)
    assert back.shape == picture.shape
    error = np.abs(back.astype(int) - picture.astype(int))
    assert error.mean() < (8 if codec == "jpeg" else 1e-9)


def compressed(data, format):
    return CompressedImage(format=format, data=array.array("B", bytes(data)))


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


JPEG = cv2.imencode(".jpg", cv2.resize(BGR, (64, 48)))[1].tobytes()


def with_thumbnail(jpeg):
    """The JPEG with a smaller one in its Exif segment, end marker and all, as cameras write them."""
    exif = b"Exif\x00\x00" + cv2.imencode(".jpg", cv2.resize(BGR, (16, 12)))[1].tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def claiming(data, width, height):
    """The image with another size in its header."""
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    else:
        at = data.index(b"\xff\xc0")
        changed[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(changed)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "without data"),
        (b"no picture at all", "17 bytes with format 'jpeg'"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (png(BGR)[:40], "40 bytes"),
        (png(BGR)[:-12], "truncated"),
        (with_thumbnail(JPEG)[:-200], "truncated"),
        (cv2.imencode(".bmp", BGR)[1].tobytes(), "not a JPEG, PNG or TIFF"),
        (claiming(JPEG, 60_000, 60_000), "60000x60000 pixels is larger than max_pixels 100000000"),
        (claiming(png(BGR), 60_000, 60_000), "60000x60000 pixels is larger than max_pixels 100000000"),
        (claiming(png(BGR), 0, 6), "zero size"),
        # A decoder that reads on behind such an end takes the 4 GB that the next chunk claims.
        (
            png(BGR)[:33] + b"\0\0\0\x08IEND" + b"\xff\xff\xff\xf0IDAT" + bytes(40),
            "whose IEND chunk has 8 bytes",
        ),
        (png(BGR)[:33] + b"\xff\xff\xff\xf0IDAT" + bytes(40), "its IEND chunk is missing"),
        (png(BGR)[:8] + b"\xff\xff\xff\xf0" + png(BGR)[12:], "truncated in its header"),
        (b"\xff\xd8\xff\xd9", "without a frame header"),
        (b"\xff\xd8\xff\xe0\x00\x00\xff\xd9", "segment of length 0"),
    ],
)
def test_compressed_faults(data, words):
    with pytest.raises(ImageMessageError, match=words):
        decode_compressed(compressed(data, "jpeg"))


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restart_interval", [0, 2])
def test_whole_jpegs_of_every_kind(progressive, restart_interval):
    picture = np.random.default_rng(5).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart_interval]
    jpeg = with_thumbnail(cv2.imencode(".jpg", picture, options)[1].tobytes())
    for data in (jpeg, jpeg + bytes(100), cv2.imencode(".tiff", picture)[1].tobytes()):
        assert decode_compressed(compressed(data, "")).shape == (200, 300, 3)


def test_max_pixels_also_of_plain_images():
    assert decode_image(message_of(BGR, "bgr8"), max_pixels=48).shape == BGR.shape
    with pytest.raises(ImageMessageError, match="8x6 pixels is larger than max_pixels 47"):
        decode_image(message_of(BGR, "bgr8"), max_pixels=47)


def camera_info(**fields):
    info = CameraInfo(width=1280, height=720, distortion_model="plumb_bob", d=[0.1, -0.2, 0.0, 0.0, 0.05])
    info.header.frame_id = "front"
    info.k = [900.0, 0.0, 640.0, 0.0, 905.0, 360.0, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [880.0, 0.0, 642.0, -120.0, 0.0, 890.0, 358.0, 4.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def test_camera_info_is_scaled():
    info = camera_info()
    scaled = scaled_camera_info(info, (640, 240))
    assert (scaled.width, scaled.height) == (640, 240)
    np.testing.assert_allclose(scaled.k, [450, 0, 320, 0, 905 / 3, 120, 0, 0, 1])
    np.testing.assert_allclose(scaled.p, [440, 0, 321, -60, 0, 890 / 3, 358 / 3, 4 / 3, 0, 0, 1, 0])
    assert scaled.header == info.header
    assert (scaled.distortion_model, list(scaled.d)) == (info.distortion_model, list(info.d))
    assert info == camera_info(), "the camera's own message was changed"


def test_camera_info_with_region_of_interest_and_binning():
    """The camera sends 320x180: the 640x360 in the middle of its 1280x720 pixels, binned by 2."""
    info = camera_info(binning_x=2, binning_y=2)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 320, 180, 640, 360
    assert scaled_camera_info(info, (320, 180)) == info
    scaled = scaled_camera_info(info, (160, 90))
    assert (scaled.width, scaled.height, scaled.binning_x, scaled.binning_y) == (640, 360, 2, 2)
    assert info.roi.width == 640, "the camera's own message was changed"
    roi = scaled.roi
    assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == (160, 90, 320, 180)
    np.testing.assert_allclose(scaled.k[[0, 2, 4, 5]], [450, 320, 452.5, 180])


def test_cv_bridge_converts_encodings_that_the_table_lacks(monkeypatch):
    """With a module of that name in its place: the real one needs a ROS installation."""
    message = message_of(np.zeros((2, 6), np.uint8), "rgb101010")
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(ImageMessageError, match=r"'rgb101010' is not supported.*; cv_bridge: "):
        decode_image(message)

    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert encoding == "bgr8"
            return np.full((message.height, message.width, 3), 7, np.uint8)

    monkeypatch.setitem(sys.modules, "cv_bridge", types.SimpleNamespace(CvBridge=CvBridge))
    assert (decode_image(message) == 7).all()


def test_the_table_gives_cv_bridges_pixels():
    """Equal; of 16 bits ours takes the high byte and cv_bridge rounds, which is 1 at most."""
    cv_bridge = pytest.importorskip("cv_bridge")
    widths = {"yuv": 2, "uyv": 2, "nv1": 1, "nv2": 1, "mon": 1, "bay": 1}
    compared = 0
    for encoding in ENCODINGS:
        channels = 4 if encoding[3:4] == "a" or encoding.endswith("C4") else widths.get(encoding[:3], 3)
        channels = 1 if encoding.endswith("C1") else channels
        size = 2 if "16" in encoding else 1
        rows = {"nv12": 24, "nv21": 24, "nv24": 48}.get(encoding, 16)
        noise = np.random.default_rng(0).integers(0, 256, (rows, 16 * channels * size), np.uint8)
        message = message_of(noise, encoding)
        message.height, message.width = 16, 16
        message.step = 16 * channels * size
        try:
            theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, "bgr8")
        except Exception:  # an encoding that cv_bridge does not know, or gives no colours
            continue
        ours = decode_image(message)
        ours = ours if ours.ndim == 3 else np.repeat(ours[..., None], 3, axis=2)
        apart = np.abs(ours.astype(int) - theirs.astype(int))
        assert apart.max() <= size - 1, encoding
        compared += 1
    assert compared >= 18
