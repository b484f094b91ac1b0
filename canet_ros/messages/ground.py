# SPDX-License-Identifier: Apache-2.0
"""Free space on the ground from class masks: a grid, and ranges by bearing. Needs calibration and pose, not ROS.

The ground is a plane of the base frame. Tables hold what depends on calibration and pose, so that a frame takes
look-ups. Each bearing is followed from the point below the camera outwards: the ground is free up to the first pixel
that is not ground, where the obstacle meets the ground (the contact). What lies beyond is unknown, because a mask does
not show how deep an obstacle is. Bearings start below the camera, because seen from elsewhere an obstacle also hides
ground beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.clouds import CloudError
from canet_ros.messages.projection import Floats, Projection
from canet_ros.model.class_table import UNLABELLED

FREE, OCCUPIED, UNKNOWN = 0, 100, -1  # of nav_msgs/OccupancyGrid
_GROUND, _OBSTACLE, _UNSURE, _HIDDEN = range(4)
_MIN_HEIGHT_M = 0.02
# Under a raised body, as between the wheels of a car, the ground is visible but not free: a gap between two contacts
# counts as such up to this width, if a body at ``heights_m[1]`` explains how much farther it reaches than they do.
_GAP_M = 4.0
_REACHES = sorted(
    {int(1.4**k) for k in range(16)}, reverse=True
)  # bearings on both sides of one that is bridged
_CONTINUOUS_M = 0.5  # contacts of neighbouring bearings that differ by less belong to one surface

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class GroundOptions:
    """Extent and thresholds; see the node's parameters ``ground_range`` and so on.

    Attributes:
        heights_m: height of the ground in the base frame, and the greatest height of an obstacle's lower edge.
        min_confidence: 0..1; pixels below are unsure.
    """

    range_m: float
    resolution_m: float
    heights_m: tuple[float, float]
    min_confidence: float

    @property
    def bearings(self) -> int:
        """Number of bearings of a full turn, one resolution apart at the range."""
        return math.ceil(2 * math.pi * self.range_m / self.resolution_m)

    @property
    def side(self) -> int:
        """Cells along a side of the square grid, whose centre is the origin of the base frame."""
        return 2 * math.ceil(self.range_m / self.resolution_m)

    def places(self) -> tuple[Floats, Floats]:
        """x and y of the centres of the cells, (side, side), and of samples along bearings, (bearings, side / 2)."""
        steps = (np.arange(self.side) - self.side / 2 + 0.5) * self.resolution_m
        angles = (2 * math.pi / self.bearings * np.arange(self.bearings) - math.pi)[:, None]
        along = steps[self.side // 2 :]
        return (
            np.stack(np.meshgrid(steps, steps)).astype(np.float32),
            np.stack([along * np.cos(angles), along * np.sin(angles)]).astype(np.float32),
        )


@dataclass(frozen=True, eq=False)
class GroundSight:
    """What one image shows of the ground, in the base frame.

    Attributes:
        contacts: (n, 2), points where obstacles meet the ground, m.
        free: flat indices of the cells that are ground all over.
        ground, visible: flat indices of samples along bearings that are ground, or would be without obstacles.
    """

    contacts: Floats
    free: Indices
    ground: Indices
    visible: Indices


class GroundView:
    """Tables of one camera for one calibration and pose.

    Args:
        projection: of the mask's image.
        pose: (3, 4) [R|t] of the camera's optical frame in the base frame, m.

    Raises:
        CloudError: the camera is not above the ground, or sees none within the range.
    """

    def __init__(self, projection: Projection, pose: NDArray[np.float64], options: GroundOptions) -> None:
        self._options = options
        rotation, (x, y, z) = pose[:, :3], pose[:, 3]
        height_m = float(z) - options.heights_m[0]
        if height_m < _MIN_HEIGHT_M:
            raise CloudError(
                f"the camera is {height_m:.2f} m above the ground: check its pose in base_frame, from tf2 or "
                "camera_extrinsics, and ground_heights"
            )
        # An obstacle whose lower edge is at the upper height appears farther away by the inverse of this factor.
        self._overhang = 1 - min(options.heights_m[1] - options.heights_m[0], height_m / 2) / height_m
        self._height_px = height_m * float(projection.matrix[1, 1])
        radii = self._sampled_radii((options.range_m + math.hypot(x, y)) / self._overhang)
        self._step = 2 * math.pi / options.bearings
        start = math.atan2(rotation[1, 2], rotation[0, 2]) - math.pi
        bearings = start + self._step * np.arange(options.bearings)
        coarse = _pixels(projection, rotation, height_m, bearings[::8], radii[::8]) >= 0
        seen = np.flatnonzero(np.convolve(np.repeat(coarse.any(1), 8), np.ones(17), "same") > 0)
        if len(seen) == 0:
            raise CloudError(
                f"the camera sees no ground within {options.range_m:g} m: check the pose of its optical frame "
                "(z forward, x right) in base_frame"
            )
        bearings = bearings[seen[0] : seen[-1] + 1]
        pixels = _pixels(projection, rotation, height_m, bearings, radii)
        pixels[:, -1] = -1  # the end of the range is an end of the view
        first, *_, last = np.flatnonzero((pixels >= 0).any(0))
        self._radii, self._pixels = radii[first : last + 2], pixels[:, first : last + 2]
        self._hidden = self._pixels < 0
        self._origin, self._directions = pose[:2, 3], np.stack([np.cos(bearings), np.sin(bearings)], 1)
        cells, samples = options.places()
        self._cells, self._samples = self._seen_places(*cells), self._seen_places(*samples)
        _, middle, distance = self._cells
        half = np.ceil(options.resolution_m / 2 / (self._step * distance)).astype(np.intp)
        self._cell_sides = np.clip([middle - half, middle, middle + half], 0, len(bearings) - 1)
        self._visible = self._ground_samples(*self._follow(self._hidden, self._hidden))

    def look(
        self, is_ground: NDArray[np.bool_], mask: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> GroundSight:
        """Find the free ground of an image.

        Args:
            is_ground: (256,), by mask value.
            mask, confidence: (H, W) of the projection's size. Unlabelled pixels of confidence 0 in front of the first
                ground, such as the bonnet under an ignore mask, are not seen; elsewhere they are unsure.
        """
        table = np.where(is_ground, np.uint8(_GROUND), np.uint8(_OBSTACLE))
        table[UNLABELLED] = _UNSURE
        labels, sure = mask.ravel()[self._pixels], confidence.ravel()[self._pixels]
        states = table[labels]
        states[sure < math.ceil(255 * self._options.min_confidence)] = _UNSURE
        states[self._hidden] = _HIDDEN
        begin, end = self._follow(states != _GROUND, self._hidden | ((labels == UNLABELLED) & (sure == 0)))
        obstacles = np.flatnonzero(states[np.arange(len(states)), end] == _OBSTACLE)
        radii, at = self._radii, end[obstacles]
        edges_m = np.where(at > begin[obstacles], (radii[at] + radii[at - 1]) / 2, radii[at])
        contacts_m = edges_m + edges_m**2 / (2 * self._height_px)  # to the centre of the pixel
        contacts = self._origin + self._directions[obstacles] * contacts_m[:, None]
        free = self._free_cells(begin, end, obstacles)
        return GroundSight(contacts.astype(np.float32), free, self._ground_samples(begin, end), self._visible)

    def _sampled_radii(self, reach_m: float) -> Floats:
        """Distances from the point below the camera, half a pixel apart, but not closer than a fifth of a cell."""
        finest_m = self._options.resolution_m / 5
        radii = [finest_m]
        while radii[-1] < reach_m:
            radii.append(radii[-1] + max(finest_m, radii[-1] ** 2 / (2 * self._height_px)))
        return np.array(radii, np.float32)

    def _seen_places(self, x: Floats, y: Floats) -> tuple[Indices, Indices, Floats]:
        """Flat indices of the points at the camera's bearings within the range; bearing and distance of each."""
        away_x, away_y = x - np.float32(self._origin[0]), y - np.float32(self._origin[1])
        first = math.atan2(self._directions[0, 1], self._directions[0, 0])
        turn = np.mod(np.arctan2(away_y, away_x) - first, 2 * math.pi)
        bearing = np.rint(turn / self._step).astype(np.intp) % self._options.bearings
        index = np.flatnonzero((bearing < len(self._directions)) & (np.hypot(x, y) <= self._options.range_m))
        return index, bearing.ravel()[index], np.hypot(away_x, away_y).ravel()[index]

    def _follow(self, stops: NDArray[np.bool_], unseen: NDArray[np.bool_]) -> tuple[Indices, Indices]:
        """By bearing: positions in the radii of the first pixel that is seen, and of the first stop from there on."""
        begin = unseen.argmin(1)
        return begin, (stops & (np.arange(len(self._radii)) >= begin[:, None])).argmax(1)

    def _ground_samples(self, begin: Indices, end: Indices) -> Indices:
        index, bearing, distance = self._samples
        near, far = self._radii[begin][bearing], self._radii[end][bearing]
        samples: Indices = index[(near <= distance) & (distance < far)]
        return samples

    def _free_cells(self, begin: Indices, end: Indices, obstacles: Indices) -> Indices:
        index, bearing, distance = self._cells
        to_m = self._radii[np.maximum(end - 2, begin)]  # the last sample of a pixel that is ground all over
        nearness = np.zeros_like(to_m)
        nearness[obstacles] = 1 / to_m[obstacles]
        to_m[obstacles] = 1 / self._bridged(nearness)[obstacles]
        half_m = np.float32(self._options.resolution_m * math.sqrt(0.5))
        within = to_m[self._cell_sides].min(0) >= distance + half_m
        cells: Indices = index[within & (self._radii[begin][bearing] <= distance - half_m)]
        return cells

    def _bridged(self, nearness: Floats) -> Floats:
        """1 / distance by bearing, with gaps under raised bodies bridged by straight lines; 0: no contact."""
        bridged, count = nearness.copy(), len(nearness)
        for reach in [reach for reach in _REACHES if 2 * reach < count] * 2:
            turn = reach * self._step
            left, inner, right = bridged[: -2 * reach], bridged[reach:-reach], bridged[2 * reach :]
            line = (left + right) / np.float32(2 * math.cos(turn))
            raised = (line > inner) & (2 * turn <= _GAP_M * line) & (left > 0) & (right > 0)
            raised &= line * self._overhang <= nearness[reach:-reach]
            inner[raised] = line[raised]
        return bridged


def merge(sights: Sequence[GroundSight], options: GroundOptions) -> tuple[Floats, NDArray[np.int8]]:
    """Ranges by bearing from -pi on, (bearings,) in m, and the grid, (side, side) with rows along y.

    A range is that of the nearest contact, inf where the ground reaches the end of the view or of the range, and NaN
    where neither is known. A cell is ``FREE``, ``OCCUPIED`` at a contact, else ``UNKNOWN``.
    """
    cells = np.full(options.side**2, UNKNOWN, np.int8)
    status = np.zeros((options.bearings, options.side // 2), np.uint8)  # 1: visible; 2: ground
    for sight in sights:
        cells[sight.free] = FREE
        status.ravel()[sight.visible] |= 1
        status.ravel()[sight.ground] |= 2
    contacts = np.concatenate([sight.contacts for sight in sights])
    contacts = contacts[np.hypot(*contacts.T) < options.range_m]
    columns, rows = (np.floor(contacts / options.resolution_m).astype(np.intp) + options.side // 2).T
    cells[rows * options.side + columns] = OCCUPIED

    step, ranges = 2 * math.pi / options.bearings, np.full(options.bearings, np.inf, np.float32)
    bearings = np.rint((np.arctan2(contacts[:, 1], contacts[:, 0]) + math.pi) / step).astype(np.intp)
    np.minimum.at(ranges, bearings % options.bearings, np.hypot(*contacts.T))
    before, after = np.roll(ranges, 1), np.roll(ranges, -1)
    with np.errstate(invalid="ignore"):
        missed = np.isinf(ranges) & (np.abs(before - after) < _CONTINUOUS_M)
    ranges[missed] = (before[missed] + after[missed]) / 2

    visible = status & 1
    status[np.arange(status.shape[1]) < visible.argmax(1)[:, None]] = 3
    end = (status < 2).argmax(1)
    unknown = (status[np.arange(len(status)), end] == 1) | ~visible.any(1)
    ranges[np.isinf(ranges) & unknown] = np.nan
    return ranges, cells.reshape(options.side, options.side)


def _pixels(
    projection: Projection,
    rotation: NDArray[np.float64],
    height_m: float,
    bearings: NDArray[np.floating[Any]],
    radii: Floats,
) -> NDArray[np.int32]:
    """Flat index of the pixel that shows each point of the ground, (bearings, radii); -1: none."""
    ahead = np.cos(bearings)[:, None] * rotation[0] + np.sin(bearings)[:, None] * rotation[1]
    x, y, depth = (
        np.outer(along, radii) - np.float32(down)
        for along, down in zip(ahead.T.astype(np.float32), height_m * rotation[2])
    )
    return projection.flat_pixels(x, y, depth)
