# SPDX-License-Identifier: Apache-2.0
"""The processing of a frame: camera transform, segmentation, temporal filter, confidence threshold, rendering."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canet_ros.model.model_folder import Resolution
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.class_shares import class_shares
from canet_ros.pipeline.outputs import ProcessOptions, RenderInput
from canet_ros.pipeline.segmentation import Segmentation

Segment = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Segmentation]]


@dataclass(frozen=True)
class Frame:
    """A camera's image, (H, W, 3) BGR or (H, W) grey uint8, with its camera's transform and filter.

    Attributes:
        temporal_filter: filters a segmentation, given the stamp in ns; None: no filter.
        share_filter: smooths the share of each class, given the stamp in ns; None: no smoothing.
    """

    image: NDArray[np.uint8]
    stamp_ns: int
    transform: CameraTransform
    temporal_filter: Callable[[Segmentation, int], Segmentation] | None = None
    share_filter: Callable[[NDArray[np.float32], int], NDArray[np.float32]] | None = None

    def results_size(self, resolution: Resolution, at_network_size: bool) -> Resolution:
        """(width, height) of the results for a network of this resolution."""
        size = (self.image.shape[1], self.image.shape[0])
        return self.transform.results_size(size, resolution) if at_network_size else size


def process(frames: Sequence[Frame], segment: Segment, options: ProcessOptions) -> list[RenderInput]:
    """Process frames to what their outputs are rendered from, see ``outputs``.

    Args:
        segment: segments images of any sizes at once, at the network's resolution.

    Raises:
        ValueError: an image is too small for its region. Also raises what ``segment`` raises.
    """
    found = segment([frame.transform.to_network(frame.image) for frame in frames])
    return [postprocess(frame, segmentation, options) for frame, segmentation in zip(frames, found)]


def postprocess(frame: Frame, segmentation: Segmentation, options: ProcessOptions) -> RenderInput:
    """Second half of ``process``, for callers that segment several frames at once and postprocess them one by one.

    Args:
        segmentation: of the transformed image, at the network's resolution.
    """
    if frame.temporal_filter is not None:
        segmentation = frame.temporal_filter(segmentation, frame.stamp_ns)
    sure = segmentation.unlabelled_below(options.min_confidence)
    height, width = segmentation.mask.shape
    size = frame.results_size((width, height), options.at_network_size)
    placed = frame.transform.to_camera(sure, (frame.image.shape[1], frame.image.shape[0]), size)
    shares = functools.partial(_shares, frame, sure, len(options.classes))
    return RenderInput(frame.image, placed, options, shares)


def _shares(frame: Frame, found: Segmentation, classes: int) -> NDArray[np.float32]:
    """Shares of the classes inside the camera's region, from the segmentation at the network's resolution."""
    (height, width), (image_height, image_width) = found.mask.shape, frame.image.shape[:2]
    counted = frame.transform.counted((image_width, image_height), (width, height))
    shares = class_shares(found.mask, counted, classes)
    return shares if frame.share_filter is None else frame.share_filter(shares, frame.stamp_ns)
