# SPDX-License-Identifier: Apache-2.0
"""Ground: grass, surface texture and shadows."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.simulation.appearance import Appearance
from canet_ros.simulation.rendering import Camera
from canet_ros.simulation.shapes import StreetClass
from canet_ros.simulation.world import Placed

SHADOWS_TO_M = 90.0
GRASS = (52, 92, 74)
TILE_PX = 512
TEXELS_PER_M = 24.0


def shadows(
    camera: Camera, appearance: Appearance, objects: Sequence[Placed], width: int, height: int
) -> NDArray[np.uint8]:
    """Light on the ground, (height, width), 255 in full light, less under objects and in their shadow."""
    light = np.full((height, width), 255, np.uint8)
    boxes = [(o.solid.low, o.solid.high, o.x, o.s - camera.s) for o in objects]
    boxes = [box for box in boxes if box[0][2] + box[3] < SHADOWS_TO_M]
    if not boxes:
        return light
    left, near = np.array([(low[0] + x, low[2] + s) for low, _, x, s in boxes]).T
    right, far = np.array([(high[0] + x, high[2] + s) for _, high, x, s in boxes]).T
    tall = np.array([high[1] for _, high, _, _ in boxes])
    feet = np.stack([np.stack([left, right, right, left], 1), np.stack([near, near, far, far], 1)], axis=2)
    sun, weather = appearance.sun, appearance.weather
    if weather.sun_strength > 0:
        reach = np.array([-sun[0], -sun[2]]) / max(sun[1], 0.15)
        heads = feet + reach * np.minimum(tall, 14)[:, None, None]
        level = weather.ambient / (weather.ambient + weather.sun_strength * sun[1])
        _fill_hulls(light, camera, np.concatenate([feet, heads], axis=1), int(255 * level) + 20)
    low = feet[tall < 2.6]
    _fill_hulls(light, camera, np.concatenate([low - 0.12, low + 0.12], axis=1), 110)
    return np.asarray(cv2.blur(light, (3, 3)), dtype=np.uint8)


def _fill_hulls(light: NDArray[np.uint8], camera: Camera, outlines: NDArray[np.float64], level: int) -> None:
    corners = np.insert(outlines.reshape(-1, 2), 1, 0, axis=1).astype(np.float32)
    points = camera.to_camera(corners)
    points[:, 2] = np.maximum(points[:, 2], 1.0)
    for pixels in camera.project(points).reshape(*outlines.shape):
        cv2.fillConvexPoly(light, np.rint(cv2.convexHull(pixels)).astype(np.int32), level)


class Ground:
    """Grass up to the horizon, and a texture that is fixed to the ground."""

    def __init__(self, camera: Camera, appearance: Appearance, seed: int, width: int, height: int) -> None:
        rng = np.random.default_rng([seed, 8])
        tile = np.full((TILE_PX, TILE_PX), 128, np.float32)
        for cells, weight in ((512, 14.0), (128, 9.0), (32, 7.0), (8, 9.0)):
            # Wrap padding makes the tile seamless.
            coarse = np.pad(rng.normal(0, weight, (cells, cells)).astype(np.float32), 1, mode="wrap")
            scale = TILE_PX // cells
            fine = np.asarray(cv2.resize(coarse, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR))
            tile += fine[scale:-scale, scale:-scale]
        self._tile = np.clip(tile, 0, 255).astype(np.uint8)
        focal_px, horizon_px = camera.matrix[1, 1], camera.matrix[1, 2]
        self._top = int(horizon_px) + 1
        depth = focal_px * camera.height_m / (np.arange(self._top, height)[:, None] + 0.5 - horizon_px)
        # Fixed-point maps are 16 bits wide; the horizon is farther away.
        z = np.broadcast_to(depth * TEXELS_PER_M, (len(depth), width)).clip(0, 30000)
        x = ((np.arange(width) - camera.matrix[0, 2]) / focal_px * depth * TEXELS_PER_M).clip(-30000, 30000)
        self._maps = cv2.convertMaps(x.astype(np.float32), z.astype(np.float32), cv2.CV_16SC2)
        # Fades out with distance, where many texels per pixel would flicker.
        self._fade = (np.minimum(1, 7 / depth) / 255).astype(np.float32)
        up = np.array([[0, -1, 0]], dtype=np.float32)
        grass = appearance.haze(
            np.full((len(depth), 3), GRASS) * appearance.light(up, np.array([False]), False), depth[:, 0]
        )
        # CamVid's eleven classes count grass (VegetationMisc) as tree.
        rows = np.insert(grass, 3, StreetClass.TREE, axis=1).astype(np.uint8)
        self._grass = np.repeat(rows[:, None], width, axis=1)

    def paint_grass(self, canvas: NDArray[np.uint8]) -> None:
        """Fill a (H, W, 4) canvas below the horizon with grass."""
        canvas[self._top :] = self._grass

    def paint_light(self, canvas: NDArray[np.uint8], camera: Camera, light: NDArray[np.uint8]) -> None:
        """Multiply the ground of a (H, W, 4) canvas by texture and light (H, W). Class ids stay."""
        part = canvas[self._top :]
        rolled = np.roll(self._tile, -int(camera.s * TEXELS_PER_M) % TILE_PX, axis=0)
        texture = cv2.remap(rolled, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).astype(
            np.float32
        )
        # 200 is neutral, so that the texture can brighten too.
        factor = ((texture - 128) * self._fade + 1) * light[self._top :] * np.float32(200 / 255)
        factor = np.clip(factor, 0, 255).astype(np.uint8)
        cv2.multiply(
            part, cv2.merge([factor, factor, factor, np.full_like(factor, 200)]), part, scale=1 / 200
        )
