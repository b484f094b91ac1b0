# SPDX-License-Identifier: Apache-2.0
"""Random geometry, lighting and lens effects for training images."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SCALE_RANGE = (0.7, 1.8)
_ASPECT_RANGE = (0.85, 1.18)
_MAX_ROTATION_DEG = 4.0
_GAMMA = 2.2  # of cameras
_IGNORED = 255

Image = NDArray[np.uint8]


def view_shapes(crop: tuple[int, int], max_aspect: float, multiple: int = 16) -> list[tuple[int, int]]:
    """Shapes (width, height) of training views: ``crop``, one of ``max_aspect``, and one between the two.

    All have about the area of ``crop``, so that steps cost the same, and sides that are multiples of ``multiple``.
    A crop as wide as ``max_aspect`` is the only shape.
    """
    narrowest = crop[0] / crop[1]
    shapes = [crop]
    if max_aspect <= narrowest:
        return shapes
    for share in (0.5, 1.0):
        aspect = narrowest * (max_aspect / narrowest) ** share
        height = max(1, round(math.sqrt(crop[0] * crop[1] / aspect) / multiple)) * multiple
        width = max(1, round(crop[0] * crop[1] / height / multiple)) * multiple
        if width / height > shapes[-1][0] / shapes[-1][1]:
            shapes.append((width, height))
    return shapes


def augment(
    image: Image, label: Image, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[Image, Image]:
    """A random view of the image under random lighting, some of them dark or blurred by motion.

    Args:
        image: (H, W, 3) BGR uint8.
        label: (H, W) uint8 class ids.
        crop: (width, height) of the result.
        rng: the only source of randomness.

    Returns:
        Image (height, width, 3) BGR uint8 and labels (height, width) uint8. A view wider than the image continues in
        its mirror image; labels above and below the image are 255.
    """
    image, label = _random_view(image, label, crop, rng)
    image = _random_lens(_random_light(image, rng), rng)
    if rng.random() < 0.06:
        image = _motion_blurred(image, rng)
    if rng.random() < 0.1:
        image = _underexposed(image, rng)
    return image, label


def _random_view(
    image: Image, label: Image, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[Image, Image]:
    height, width = label.shape
    # By area, not by width: objects in the image of a wide camera are not larger than in that of a narrow one.
    fit = math.sqrt(crop[0] * crop[1] / (width * height))
    scale = float(np.exp(rng.uniform(*np.log(_SCALE_RANGE)))) * fit
    aspect = float(np.exp(rng.uniform(*np.log(_ASPECT_RANGE))))
    scale_x, scale_y = scale * np.sqrt(aspect), scale / np.sqrt(aspect)
    flip = rng.random() < 0.5
    angle = np.deg2rad(rng.uniform(-_MAX_ROTATION_DEG, _MAX_ROTATION_DEG)) if rng.random() < 0.3 else 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-scale_x if flip else scale_x, scale_y])
    slack = np.abs(np.array([scale_x * width, scale_y * height]) - np.array(crop)) / 2
    center = np.array(crop) / 2 + rng.uniform(-slack, slack)
    margin = math.ceil(max(0.0, crop[0] / scale_x - width))
    if margin:
        image, label = (
            cv2.copyMakeBorder(plane, 0, 0, margin, margin, cv2.BORDER_REFLECT_101).astype(
                np.uint8, copy=False
            )
            for plane in (image, label)
        )
    offset = center - linear @ np.array([margin + width / 2, height / 2])
    matrix = np.hstack((linear, offset[:, None]))
    view = cv2.warpAffine(image, matrix, crop, flags=cv2.INTER_LINEAR, borderValue=(104, 116, 124))
    labels = cv2.warpAffine(label, matrix, crop, flags=cv2.INTER_NEAREST, borderValue=(_IGNORED,))
    return view.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)


def _random_light(image: Image, rng: np.random.Generator) -> Image:
    levels = np.linspace(0.0, 1.0, 256)
    gamma = np.exp(rng.uniform(-0.4, 0.4))
    contrast, brightness = rng.uniform(0.65, 1.35), rng.uniform(-0.1, 0.15)
    gains = rng.uniform(0.88, 1.12, 3)
    # Contrast scales about the image's own mean, so that dark images stay legible.
    middle = float(np.mean(image[::8, ::8])) / 255
    curves = (levels[:, None] ** gamma - middle**gamma) * contrast + middle + brightness
    table = np.clip(curves * gains * 255.0, 0, 255).astype(np.uint8)
    lit = cv2.LUT(image, table.reshape(256, 1, 3))
    if rng.random() < 0.8:
        hsv = cv2.cvtColor(lit, cv2.COLOR_BGR2HSV)
        hue = (np.arange(256) + int(rng.integers(-9, 10))) % 180
        saturation = np.clip(np.arange(256) * rng.uniform(0.3, 1.6), 0, 255)
        value = np.arange(256)
        hsv_table = np.stack((hue, saturation, value), axis=-1).astype(np.uint8).reshape(256, 1, 3)
        lit = cv2.cvtColor(cv2.LUT(hsv, hsv_table), cv2.COLOR_HSV2BGR)
    if rng.random() < 0.3:
        lit = cv2.multiply(lit, _shadow(lit.shape[:2], rng), scale=1 / 255)
    return lit.astype(np.uint8, copy=False)


def _shadow(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """Factors (H, W, 3) uint8, 255 for unchanged, of a soft-edged shadow like that of a building or a tree."""
    height, width = size
    corners = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
    shade = np.full((height // 4 + 1, width // 4 + 1), 255, np.uint8)
    cv2.fillConvexPoly(shade, cv2.convexHull((corners / 4).astype(np.int32)), int(rng.uniform(90, 200)))
    soft = cv2.GaussianBlur(shade, (0, 0), rng.uniform(1, 6))
    full = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(full, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)


def _random_lens(image: Image, rng: np.random.Generator) -> Image:
    kind = rng.random()
    if kind < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)).astype(np.uint8, copy=False)
    elif kind < 0.25:
        sharpened = cv2.addWeighted(image, 1.6, cv2.GaussianBlur(image, (0, 0), 1.5), -0.6, 0)
        image = sharpened.astype(np.uint8, copy=False)
    elif kind < 0.35:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])[1]
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert decoded is not None
        image = decoded.astype(np.uint8, copy=False)
    return _noisy(image, rng) if rng.random() < 0.3 else image


def _motion_blurred(image: Image, rng: np.random.Generator) -> Image:
    length, angle = int(rng.integers(3, 12)), rng.uniform(0, math.pi)
    ends = np.outer((-1, 1), (math.cos(angle), math.sin(angle))) * (length - 1) / 2 + length // 2
    kernel = np.zeros((length, length), np.float32)
    start, end = ends.round().astype(int).tolist()
    cv2.line(kernel, start, end, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum()).astype(np.uint8, copy=False)


def _underexposed(image: Image, rng: np.random.Generator) -> Image:
    """As at dusk or night: 3 to 50 % of the light, under a coloured lamp, with the noise of a high gain."""
    light = np.exp(rng.uniform(*np.log((0.03, 0.5)))) * rng.uniform(0.7, 1.3, 3)
    return _noisy(image * light ** (1 / _GAMMA), rng)


def _noisy(image: NDArray[Any], rng: np.random.Generator) -> Image:
    noise = rng.normal(0, rng.uniform(2, 10), image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
