# SPDX-License-Identifier: Apache-2.0
"""Figures and image of docs/tutorials/navigate-with-free-space.md; run as a script to print and to write them."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from canet_ros import Segmenter
from canet_ros.files import write_image
from canet_ros.messages.ground import GroundOptions, GroundView, merge
from canet_ros.messages.projection import Projection
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.simulation import StreetClass, StreetDrive
from canet_ros.simulation.street import CAMERA_HEIGHT_M

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "ground.png"
SIZE = (1280, 720)
OPTIONS = GroundOptions(20.0, 0.1, (0.0, 0.45), 0.3)
POSE = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, CAMERA_HEIGHT_M]])
# The ids of StreetClass and of the shipped models are those of CamVid.
GROUND = np.isin(np.arange(256), (StreetClass.ROAD, StreetClass.PAVEMENT))


def view_of(drive: StreetDrive) -> GroundView:
    return GroundView(Projection(drive.camera_matrix, np.zeros(5), False, SIZE), POSE, OPTIONS)


def cells_of(view: GroundView, found: Segmentation) -> np.ndarray:
    """(side, side); the bonnet is ignored in every image."""
    mask, confidence = found.mask.copy(), found.confidence.copy()
    mask[int(0.9 * SIZE[1]) :], confidence[int(0.9 * SIZE[1]) :] = 255, 0
    return merge([view.look(GROUND, mask, confidence)], OPTIONS)[1]


def figures(drives: int) -> tuple[float, float, float]:
    """Precision and recall of free cells within 15 m against those of the ground truth; CPU time of a frame, ms."""
    segmenter = Segmenter.load("canet-mobilenet_v2-camvid", device="cpu")
    metres = (np.arange(OPTIONS.side) - OPTIONS.side / 2 + 0.5) * OPTIONS.resolution_m
    near = np.hypot(*np.meshgrid(metres, metres)) <= 15
    both = found = true = 0
    times_ms = []
    for seed in range(900001, 900001 + drives):
        drive = StreetDrive(seed, *SIZE)
        view, frame = view_of(drive), drive.frame(20)
        result = segmenter(frame.image)
        certain = np.full_like(frame.labels, 255)
        free, labelled_free = (
            (cells_of(view, segmentation) == 0) & near
            for segmentation in (result, Segmentation(frame.labels, certain))
        )
        both, found, true = (
            both + (free & labelled_free).sum(),
            found + free.sum(),
            true + labelled_free.sum(),
        )
        for _ in range(20):
            start_s = time.thread_time()
            merge([view.look(GROUND, result.mask, result.confidence)], OPTIONS)
            times_ms.append((time.thread_time() - start_s) * 1e3)
    return both / found, both / true, float(np.median(times_ms))


def test_precision_recall_and_time() -> None:
    precision, recall, time_ms = figures(10)
    assert precision > 0.96
    assert recall > 0.96
    assert time_ms < 3


def draw() -> None:
    """The camera image beside the grid, seen from above with x upwards."""
    drive = StreetDrive(3, *SIZE)
    frame = drive.frame(30)
    cells = cells_of(view_of(drive), Segmentation(frame.labels, np.full_like(frame.labels, 255)))
    colours = np.array([(120, 200, 120), (40, 40, 220), (225, 225, 225)], np.uint8)
    grid = colours[np.select([cells == 0, cells == 100], [0, 1], 2)]
    middle = OPTIONS.side // 2
    # Rows lie along y and columns along x: turned by 90 degrees, ahead is up and left is left.
    above = cv2.rotate(grid[middle - 100 : middle + 100, middle:], cv2.ROTATE_90_COUNTERCLOCKWISE)[:, ::-1]
    height = 270
    image = cv2.resize(frame.image, (480, height), interpolation=cv2.INTER_AREA)
    above = cv2.resize(np.ascontiguousarray(above), (height, height), interpolation=cv2.INTER_NEAREST)
    write_image(IMAGE, np.hstack([image, above]))


if __name__ == "__main__":
    draw()
    print("precision {:.3f}, recall {:.3f}, CPU time {:.2f} ms".format(*figures(30)))
