# SPDX-License-Identifier: Apache-2.0
"""compressedDepth against an encoder that follows image_transport_plugins' codec.cpp and rvl_codec.cpp line by line."""

from __future__ import annotations

import struct
from types import SimpleNamespace as Record
from typing import Any

import cv2
import numpy as np
import pytest

from canet_ros.messages.clouds import CloudError
from canet_ros.messages.compressed_depth import compressed_depth_values

MM = np.array([[0, 0, 1500], [1510, 1490, 0], [65535, 1, 7]], np.uint16)
# What RvlCodec::CompressRVL of image_transport_plugins makes of these, with the size before it.
RVL_OF_MM = bytes.fromhex("0300000003000000c2e58f239aab13f4f3ffbff3000000c1")


def png(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


def rvl(values: np.ndarray) -> bytes:
    nibbles: list[int] = []

    def encode(value: int) -> None:
        while True:
            nibbles.append(value & 7 | (8 if value > 7 else 0))
            value >>= 3
            if not value:
                return

    pixels, at, previous = values.ravel().tolist(), 0, 0
    while at < len(pixels):
        for zero in (True, False):
            start = at
            while at < len(pixels) and (pixels[at] == 0) is zero:
                at += 1
            encode(at - start)
        for current in pixels[start:at]:
            delta = current - previous
            encode(delta << 1 ^ delta >> 31)
            previous = current
    nibbles += [0] * (-len(nibbles) % 8)
    words = (int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8))
    return struct.pack("<II", *values.shape[::-1]) + b"".join(struct.pack("<I", word) for word in words)


def message(form: str, data: bytes, a: float = 0.0, b: float = 0.0) -> Any:
    return Record(format=form, data=struct.pack("<iff", 0, a, b) + data)


def scenes() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    noise = random.integers(0, 65536, (48, 64)).astype(np.uint16)
    holes = np.where(random.random((48, 64)) < 0.2, 0, 1500 + noise % 40).astype(np.uint16)
    return {
        "holes": holes, "no depth": np.zeros((48, 64), np.uint16), "full": noise | 1,
        "steps": np.array([[0, 65535, 0, 1, 65535]], np.uint16), "one": np.array([[9]], np.uint16),
    }  # fmt: skip


@pytest.mark.parametrize("name", scenes())
@pytest.mark.parametrize(
    ("form", "encode"),
    [
        ("16UC1; compressedDepth png", png),
        ("mono16; compressedDepth rvl", rvl),
        ("16UC1", png),  # old senders leave out the codec
        ("16UC1 ; compressedDepth ", png),
    ],
)
def test_depths_in_mm(name: str, form: str, encode: Any) -> None:
    values = scenes()[name]
    found = compressed_depth_values(message(form, encode(values)))
    np.testing.assert_array_equal(found, values * np.float32(1e-3))
    assert found.dtype == np.float32


def test_the_bytes_of_the_upstream_encoder() -> None:
    assert rvl(MM) == RVL_OF_MM
    found = compressed_depth_values(message("16UC1; compressedDepth rvl", RVL_OF_MM))
    np.testing.assert_array_equal(found, MM * np.float32(1e-3))


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_quantised_depths_in_m(codec: str) -> None:
    """Depths to 10 m at a quantisation of 100, as encodeCompressedDepthImage writes them by default."""
    depths = np.random.default_rng(1).uniform(0.3, 12, (24, 32)).astype(np.float32)
    depths[3, 4] = np.nan
    a = np.float32(100.0 * (100.0 + 1.0))
    b = np.float32(1.0) - a / np.float32(10.0)
    near = depths < 10
    stored = np.zeros(depths.shape, np.uint16)
    stored[near] = (a / depths[near] + b).astype(np.uint16)
    found = compressed_depth_values(
        message(f"32FC1; compressedDepth {codec}", {"png": png, "rvl": rvl}[codec](stored), a, b)
    )
    np.testing.assert_array_equal(np.isnan(found), ~near)
    np.testing.assert_array_equal(found[near], a / (stored[near].astype(np.float32) - b))
    np.testing.assert_allclose(found[near], depths[near], rtol=2e-3)


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        ("16UC1; jpeg compressed bgr8", png(MM), "expected 16UC1 or 32FC1"),
        ("16UC1; compressedDepth png", b"\xff" * 99, "damaged: not a JPEG, PNG or TIFF"),
        ("16UC1; compressedDepth png", png(np.stack([MM] * 3, 2)), "not a grey PNG of 16 bits"),
        ("16UC1; compressedDepth png", b"", "12 bytes is damaged"),
        ("16UC1; compressedDepth rvl", rvl(MM)[:7], "RVL of 7 bytes"),
        ("16UC1; compressedDepth rvl", rvl(MM)[:-4], "does not fit 3x3"),
        ("16UC1; compressedDepth rvl", struct.pack("<II", 4, 3) + rvl(MM)[8:], "does not fit 4x3"),
        ("16UC1; compressedDepth rvl", struct.pack("<II", 2**31, 2**31) + rvl(MM)[8:], "expected 1 to"),
        ("16UC1; compressedDepth rvl", struct.pack("<II", 3, 3) + b"\xff" * 99, "more than 24 bits|does not fit"),
        ("32FC1; compressedDepth png", png(MM), "quantisation is A=0, B=0"),
    ],
)  # fmt: skip
def test_damaged_images_are_one_error(form: str, data: bytes, words: str) -> None:
    with pytest.raises(CloudError, match=words):
        compressed_depth_values(message(form, data))


def test_damaged_bytes_never_raise_anything_else() -> None:
    random = np.random.default_rng(2)
    for encode in (png, rvl):
        data = np.frombuffer(encode(scenes()["holes"]), np.uint8)
        for _ in range(200):
            damaged = data.copy()
            damaged[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
            form = f"16UC1; compressedDepth {encode.__name__}"
            try:
                compressed_depth_values(message(form, damaged[: random.integers(1, len(data))].tobytes()))
                compressed_depth_values(message(form, damaged.tobytes()))
            except CloudError:
                continue
