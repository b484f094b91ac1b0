# SPDX-License-Identifier: Apache-2.0
"""Samples of a bag with their segmentation, for reports and for choosing frames to label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.cameras import BagCamera
from canet_ros.bags.images import image_messages
from canet_ros.bags.message_types import header_stamp_ns
from canet_ros.bags.reading import Bag
from canet_ros.messages.images import ImageMessageError
from canet_ros.opencv import in_color, resize
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.options import PipelineOptions
from canet_ros.pipeline.outputs import RenderInput
from canet_ros.pipeline.process import Frame, process
from canet_ros.pipeline.segmenter import Segmenter

SECOND_NS = 10**9


@dataclass(frozen=True)
class Sample:
    """A processed frame, whose segmentation has the network's resolution."""

    log_ns: int
    frame: RenderInput
    stamp_ns: int

    @property
    def uncertainty(self) -> float:
        """Mean uncertainty of all pixels, 0..1."""
        return float(1 - self.frame.segmentation.confidence.mean() / 255)

    def shares(self, classes: int) -> NDArray[np.float64]:
        """Share of each class, (classes,) of 0..1."""
        mask = self.frame.segmentation.mask
        return np.bincount(mask.reshape(-1), minlength=classes)[:classes] / mask.size


def samples(
    bag: Bag,
    camera: BagCamera,
    segmenter: Segmenter,
    on_skipped: Callable[[str], None],
    step_ns: int = 0,
    every: int = 1,
) -> Iterator[Sample]:
    """Yield every n-th image of a camera, at most one per ``step_ns``.

    Args:
        on_skipped: called with the problem of each image that cannot be decoded.
    """
    next_ns = 0
    options = PipelineOptions().process_options(segmenter.spec.classes, at_network_size=True)
    for number, (message, decode) in enumerate(image_messages(bag, {camera.connection.stream})):
        if number % every or message.log_ns < next_ns:
            continue
        try:
            header, image = decode()
        except ImageMessageError as error:
            on_skipped(f"{camera.topic}: skipped an image: {error}")
            continue
        next_ns = message.log_ns + step_ns
        frame = Frame(image, header_stamp_ns(header), CameraTransform())
        (processed,) = process([frame], segmenter.infer, options)
        yield Sample(message.log_ns, processed, frame.stamp_ns)


@dataclass(frozen=True)
class Candidate:
    """The features of an image that the selection needs.

    Attributes:
        features: appearance and class shares, values of about 0..1.
    """

    log_ns: int
    uncertainty: float
    features: NDArray[np.float32]


def candidate(sample: Sample, classes: int) -> Candidate:
    small = in_color(resize(sample.frame.image, (8, 6), cv2.INTER_AREA))
    look = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).reshape(-1).astype(np.float32) / 255 / np.sqrt(48)
    features = np.concatenate((look, sample.shares(classes).astype(np.float32)))
    return Candidate(sample.log_ns, sample.uncertainty, features)


def select(candidates: list[Candidate], count: int) -> list[int]:
    """Indexes of the candidates most worth labelling, in order of time, as ``candidates`` are.

    The drive is divided into ``count`` stretches with equal change of the images. Each contributes the image of
    highest uncertainty, at least a second from the others. If stretches have none left, the most uncertain
    of the rest complete the selection.
    """
    if not candidates or count < 1:
        return []
    uncertainty = np.array([c.uncertainty for c in candidates])
    times = np.array([c.log_ns for c in candidates])
    changes = np.linalg.norm(np.diff(np.stack([c.features for c in candidates]), axis=0), axis=1)
    way = np.concatenate(([0.0], changes.cumsum()))
    stretches = np.minimum(way * count / max(float(way[-1]), 1e-9), count - 1).astype(int)
    free = np.ones(len(candidates), bool)
    picked: list[int] = []
    for stretch in (*range(count), *(None for _ in range(count))):
        there = free if stretch is None else free & (stretches == stretch)
        if len(picked) == count or not there.any():
            continue
        best = int(np.where(there, uncertainty, -1).argmax())
        picked.append(best)
        free &= np.abs(times - times[best]) >= SECOND_NS
    return sorted(picked)
