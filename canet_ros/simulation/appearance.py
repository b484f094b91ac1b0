# SPDX-License-Identifier: Apache-2.0
"""Light, weather and lens of a drive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.simulation.shapes import Colour, StreetClass


class Weather(NamedTuple):
    """Colours of the sky; direct and ambient light, and its tint."""

    zenith: Colour
    horizon: Colour
    cloud: Colour
    cloudiness: float
    sun_strength: float
    ambient: float
    tint: Colour


_NEUTRAL: Colour = (1.0, 1.0, 1.0)
_WEATHERS = {
    "clear": Weather((226, 176, 122), (246, 232, 214), (250, 248, 246), 0.25, 0.75, 0.5, _NEUTRAL),
    "bright": Weather((250, 244, 236), (253, 252, 250), (255, 255, 255), 0.5, 0.75, 0.5, _NEUTRAL),
    "overcast": Weather((226, 220, 216), (242, 240, 238), (196, 190, 186), 0.8, 0.0, 0.95, _NEUTRAL),
    "low sun": Weather((206, 170, 140), (176, 214, 246), (190, 210, 244), 0.4, 0.7, 0.42, (0.86, 0.98, 1.1)),
    "dusk": Weather((150, 132, 118), (178, 172, 166), (96, 88, 84), 0.85, 0.0, 0.5, (1.06, 1.0, 0.97)),
}


@dataclass(frozen=True)
class Appearance:
    """Light, weather and lens of one drive, all derived from its seed.

    sun: unit vector towards the sun, as (x, y up, s).
    visibility_m: distance at which haze replaces 63 % of a colour.
    gain, contrast: exposure. blur_px: standard deviation at a height of 480 px. noise: standard deviation,
    0..255. vignette: loss of light in the corners, 0..1.
    """

    weather: Weather
    sun: tuple[float, float, float]
    visibility_m: float
    gain: float
    contrast: float
    blur_px: float
    motion_blur: bool
    noise: float
    vignette: float
    bonnet: bool

    def light(
        self, normals: NDArray[np.float32], two_sided: NDArray[np.bool_], mirrored: bool
    ) -> NDArray[np.float32]:
        """Light (n,), 0..1.25, on surfaces with normals (n, 3) in camera coordinates.

        two_sided: (n,); thin or round surfaces, which are always partly lit by the sun.
        """
        sun = np.array(
            [-self.sun[0] if mirrored else self.sun[0], -self.sun[1], self.sun[2]], dtype=np.float32
        )
        length = np.maximum(np.linalg.norm(normals, axis=1), 1e-6)
        direct = np.where(two_sided, 0.35, np.clip(normals @ sun / length, 0, 1))
        weather = self.weather
        light = weather.ambient * (0.82 - 0.18 * normals[:, 1] / length) + weather.sun_strength * direct
        return np.asarray(np.clip(light, 0, 1.25), dtype=np.float32)

    def haze(self, colours: NDArray[np.float32], depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colours (n, 3) seen through haze from these distances."""
        weight = 1 - np.exp(-np.maximum(depth_m, 0) / self.visibility_m)[:, None]
        far = 0.9 * np.array(self.weather.horizon)
        return np.asarray(np.clip(colours + (far - colours) * weight, 0, 255), dtype=np.float32)


def make_appearance(seed: int) -> Appearance:
    """Appearance of a seed (0 or more)."""
    rng = np.random.default_rng([seed, 3])
    weather = str(rng.choice([*_WEATHERS], p=[0.25, 0.32, 0.2, 0.15, 0.08]))
    elevation = np.radians(rng.uniform(8, 18) if weather == "low sun" else rng.uniform(25, 60))
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = (np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth))
    gain = rng.uniform(0.9, 1.25)
    if weather == "dusk":
        gain = rng.uniform(0.85, 1.05)
    return Appearance(
        weather=_WEATHERS[weather],
        sun=(float(sun[0]), float(sun[1]), float(sun[2])),
        visibility_m=float(rng.uniform(160, 900)),
        gain=float(gain),
        contrast=float(rng.uniform(0.85, 1.2)),
        blur_px=float(rng.uniform(0.4, 1.0)),
        motion_blur=bool(rng.random() < 0.3),
        noise=float(rng.uniform(1.0, 6.0)),
        vignette=float(rng.uniform(0.0, 0.4)),
        bonnet=bool(rng.random() < 0.35),
    )


def cloud_field(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Smooth noise: (height, width) float32 in 0..1."""
    field = np.zeros((height, width), np.float32)
    for cells, weight in ((3, 0.5), (7, 0.28), (15, 0.15), (31, 0.07)):
        coarse = rng.random((cells, 2 * cells), dtype=np.float32)
        field += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(field, 0, 1)


def paint_sky(
    appearance: Appearance, seed: int, height: int, width: int, horizon_px: int, focal_px: float
) -> NDArray[np.uint8]:
    """Sky with a distant skyline: (height, width, 4) uint8, blue, green, red and class id."""
    rng = np.random.default_rng([seed, 4])
    down = np.clip(np.arange(height, dtype=np.float32) / max(horizon_px, 1), 0, 1)[:, None, None]
    weather = appearance.weather
    zenith, horizon = np.array(weather.zenith, np.float32), np.array(weather.horizon, np.float32)
    sky = zenith + (horizon - zenith) * down**1.3
    clouds = cloud_field(rng, height, width)
    cover = np.clip((clouds - (0.72 - 0.45 * weather.cloudiness)) * 4, 0, 1)[..., None] * (0.85 - 0.35 * down)
    shade = 0.75 + 0.5 * cloud_field(rng, height, width)[..., None]
    sky = sky + (np.array(weather.cloud, np.float32) * np.minimum(shade, 1.04) - sky) * cover
    if weather.sun_strength > 0 and appearance.sun[2] > 0:
        u = width / 2 + focal_px * appearance.sun[0] / appearance.sun[2]
        v = horizon_px - focal_px * appearance.sun[1] / appearance.sun[2]
        far = np.hypot(np.arange(width)[None, :] - u, np.arange(height)[:, None] - v) / focal_px
        sky = sky + (200 * np.exp(-((far / 0.03) ** 2)) + 60 * np.exp(-far / 0.2))[..., None].astype(
            np.float32
        )
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[..., :3] = np.clip(sky, 0, 255)
    canvas[..., 3] = StreetClass.SKY
    u = 0.0
    while u < width:  # distant trees and buildings
        wide = focal_px * float(rng.uniform(0.02, 0.07))
        top = horizon_px - focal_px * float(rng.uniform(0.012, 0.04))
        green = rng.random() < 0.5
        colour = 0.6 * horizon.astype(float) + 0.4 * np.array((50, 66, 58) if green else (84, 90, 100))
        fill = [*colour.tolist(), float(StreetClass.TREE if green else StreetClass.BUILDING)]
        if green:
            middle, axes = (int(u + wide / 2), horizon_px), (int(wide * 0.7) + 1, int(horizon_px - top) + 1)
            cv2.ellipse(canvas, middle, axes, 0, 180, 360, fill, -1)
        else:
            cv2.rectangle(canvas, (int(u), int(top)), (int(u + wide), horizon_px), fill, -1)
        u += wide
    return canvas


class Lens:
    """Blur, vignetting, exposure and sensor noise for one drive's frames."""

    def __init__(self, appearance: Appearance, seed: int, width: int, height: int) -> None:
        self._appearance = appearance
        self._seed = seed
        rng = np.random.default_rng([seed, 5])
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        falloff = 255 * (1 - appearance.vignette * np.clip((x**2 + y**2) / 2, 0, 1))
        self._falloff = np.repeat(falloff[..., None], 3, axis=2).astype(np.uint8)
        # Larger than the frame; each frame takes a different crop.
        self._noise = rng.normal(0, appearance.noise, (height + 64, width + 64, 3)).astype(np.int16)
        level = np.arange(256) / 255.0
        curve = level**appearance.contrast
        table = np.stack(
            [curve * 255 * appearance.gain * channel for channel in appearance.weather.tint], axis=-1
        )
        self._table = np.clip(table, 0, 255).astype(np.uint8)[None]
        self._sigma = max(0.3, appearance.blur_px * height / 480)
        self._zoom = cv2.getRotationMatrix2D((width / 2, 0.44 * height), 0, 1.012)

    def expose(self, rendered: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Apply the lens to a rendered (H, W, 3) BGR image."""
        image: NDArray[Any] = rendered
        if self._appearance.motion_blur:
            # Driving forward, the image expands from the vanishing point.
            zoomed = cv2.warpAffine(image, self._zoom, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
            image = cv2.addWeighted(image, 0.5, zoomed, 0.5, 0)
        image = cv2.GaussianBlur(image, (0, 0), self._sigma)
        image = cv2.multiply(image, self._falloff, scale=1 / 255)
        image = cv2.LUT(image, self._table)
        dy, dx = np.random.default_rng([self._seed, 6, index]).integers(0, 64, 2)
        noise = self._noise[dy : dy + image.shape[0], dx : dx + image.shape[1]]
        return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)
