# SPDX-License-Identifier: Apache-2.0
"""Synthetic road scenes with ground truth, seen from a car that drives forward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.files import write_image
from canet_ros.simulation.appearance import Lens, make_appearance, paint_sky
from canet_ros.simulation.ground import Ground, shadows
from canet_ros.simulation.rendering import Camera, paint, paint_bonnet, painters_order
from canet_ros.simulation.shapes import StreetClass
from canet_ros.simulation.world import BLOCK_M, VIEW_M, block, make_street, moving_objects

CAMERA_HEIGHT_M = 1.4


@dataclass(frozen=True)
class StreetFrame:
    """One image and its ground truth.

    image: (H, W, 3) uint8, BGR. labels: (H, W) uint8, class ids of StreetClass (0..11).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class StreetDrive:
    """A drive along a synthetic street, determined by its seed of 0 or more. Sizes are 64x48 to 1920x1080."""

    def __init__(self, seed: int, width: int = 640, height: int = 480, frame_rate_hz: float = 10.0) -> None:
        self._width, self._height, self._frame_rate_hz = width, height, frame_rate_hz
        rng = np.random.default_rng([seed, 0])
        focal_px = 0.9 * max(width, height * 4 / 3)
        horizon_px = height * float(rng.uniform(0.4, 0.46))
        self._matrix = np.array([[focal_px, 0, width / 2], [0, focal_px, horizon_px], [0, 0, 1]])
        self._mirrored = bool(rng.random() < 0.5)
        self._bonnet_colour = rng.uniform(20, 120, 3).tolist()
        self._appearance = make_appearance(seed)
        self._street = make_street(seed)
        # Wider than the frame, so that it can shift in a bend.
        self._sky_margin = width // 4
        self._sky = paint_sky(
            self._appearance, seed, height, width + 2 * self._sky_margin, int(horizon_px) + 1, focal_px
        )
        self._ground = Ground(self.camera(0), self._appearance, seed, width, height)
        self._lens = Lens(self._appearance, seed, width, height)

    @property
    def camera_matrix(self) -> NDArray[np.float64]:
        """The (3, 3) float64 matrix K of the pinhole camera, in pixels; no distortion."""
        return self._matrix.copy()

    def camera(self, index: int) -> Camera:
        """Camera of a frame."""
        travelled_m = self._street.speed_m_s * index / self._frame_rate_hz
        return Camera(self._matrix, CAMERA_HEIGHT_M, travelled_m, self._street, self._mirrored)

    def frame(self, index: int) -> StreetFrame:
        """Frame of an index, 0 or more; the same bytes whatever the order of calls."""
        camera = self.camera(index)
        first, last = int(camera.s // BLOCK_M), int((camera.s + VIEW_M) // BLOCK_M)
        blocks = [block(self._street, number) for number in range(last, first - 2, -1)]
        static = [placed for part in blocks for placed in part.static]
        moving = moving_objects(self._street, index / self._frame_rate_hz)
        objects = painters_order([*static, *moving], camera)

        canvas = self._sky_at(camera)
        self._ground.paint_grass(canvas)
        paint(canvas, camera, self._appearance, [part.ground for part in blocks])
        light = shadows(camera, self._appearance, objects, self._width, self._height)
        self._ground.paint_light(canvas, camera, light)
        paint(canvas, camera, self._appearance, objects)
        if self._appearance.bonnet:
            paint_bonnet(canvas, self._bonnet_colour, StreetClass.UNLABELLED)
        image = self._lens.expose(np.asarray(cv2.cvtColor(canvas, cv2.COLOR_BGRA2BGR), np.uint8), index)
        return StreetFrame(image, np.asarray(cv2.extractChannel(canvas, 3), np.uint8))

    def _sky_at(self, camera: Camera) -> NDArray[np.uint8]:
        heading = float(camera.centre_line(0.0)[1]) * (-1 if self._mirrored else 1)
        shift = int(np.clip(heading * self._matrix[0, 0], -self._sky_margin, self._sky_margin))
        start = self._sky_margin + shift
        return self._sky[:, start : start + self._width].copy()


def write_scenes(folder: Path, count: int, first_seed: int, width: int = 480, height: int = 360) -> None:
    """Write images and labels in CamVid's layout, images/NAME.png and labels/NAME.png, each from another drive.

    Seeds are first_seed .. first_seed + count - 1. Raises OSError when a file cannot be written.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in tqdm(range(first_seed, first_seed + count), desc="street scenes", unit="scene", disable=None):
        index = int(np.random.default_rng([seed, 9]).integers(0, 1000))
        frame = StreetDrive(seed, width, height).frame(index)
        for name, pixels in (("images", frame.image), ("labels", frame.labels)):
            write_image(folder / name / f"street_{seed:06d}.png", pixels)
