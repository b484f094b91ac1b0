# SPDX-License-Identifier: Apache-2.0
"""Pictures of a bag with what the model makes of them, for reports and for the choice of what to label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.cameras import BagCamera
from canet_ros.bags.message_types import stamp_of
from canet_ros.bags.reading import Bag
from canet_ros.bags.results import frame_of
from canet_ros.inference.segmenter import Segmentation, Segmenter
from canet_ros.messages.images import ImageMessageError

SECOND_NS = 10**9


@dataclass(frozen=True)
class Sample:
    """A picture, (H, W, 3) BGR or (H, W) grey uint8, and its segmentation at the network's resolution."""

    camera: BagCamera
    log_ns: int
    stamp_ns: int
    image: NDArray[np.uint8]
    segmentation: Segmentation


def samples(
    bag: Bag,
    camera: BagCamera,
    segmenter: Segmenter,
    seen: Callable[[str, int], None],
    skipped: Callable[[str], None],
    step_ns: int = 0,
    every: int = 1,
) -> Iterator[Sample]:
    """A camera's pictures: at most one in ``step_ns``, and every n-th one.

    Args:
        seen: told topic and time of every message, so that one pass is enough.
        skipped: told of each picture that cannot be decoded.
    """
    next_ns = number = 0
    for _, message in bag.messages():
        seen(message.connection.topic, message.log_ns)
        if message.connection.stream != camera.connection.stream:
            continue
        number += 1
        if (number - 1) % every or message.log_ns < next_ns:
            continue
        try:
            head, image = frame_of(message.data, message.connection.msgtype)
        except ImageMessageError as error:
            skipped(f"{camera.topic}: a picture is skipped: {error}")
            continue
        next_ns = message.log_ns + step_ns
        yield Sample(camera, message.log_ns, stamp_of(head), image, segmenter.segment_batch([image])[0])


def unsureness(segmentation: Segmentation) -> float:
    """0: sure of every pixel, 1: of none."""
    return float(1 - segmentation.confidence.mean() / 255)


@dataclass(frozen=True)
class Candidate:
    """What is kept of a picture until the choice is made.

    Attributes:
        features: of its look and of the share of each class, any number of values of about 0..1.
    """

    log_ns: int
    unsure: float
    features: NDArray[np.float32]


def candidate(sample: Sample, classes: int) -> Candidate:
    small = cv2.resize(sample.image, (8, 6), interpolation=cv2.INTER_AREA)
    if small.ndim == 2:
        small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    look = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).reshape(-1).astype(np.float32) / 255 / np.sqrt(48)
    shares = np.bincount(sample.segmentation.mask.reshape(-1), minlength=classes)[:classes]
    features = np.concatenate((look, shares.astype(np.float32) / sample.segmentation.mask.size))
    return Candidate(sample.log_ns, unsureness(sample.segmentation), features)


def chosen(candidates: list[Candidate], count: int) -> list[int]:
    """Indexes of the candidates most worth labelling; they come in the order of time, ``candidates`` too.

    The drive is cut into ``count`` stretches along which the pictures change equally much, and of each the one of
    which the model is most unsure is taken; none within a second of another. What is then missing, because a stretch
    has none to take, are the most unsure of the rest.
    """
    if not candidates or count < 1:
        return []
    unsure = np.array([c.unsure for c in candidates])
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
        best = int(np.where(there, unsure, -1).argmax())
        picked.append(best)
        free &= np.abs(times - times[best]) >= SECOND_NS
    return sorted(picked)
