# SPDX-License-Identifier: Apache-2.0
"""Processes the frames of a bag in threads.

The results of a frame depend on that frame only, except with ``steady``, which also uses earlier frames of its camera.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import header_stamp_ns
from canet_ros.bags.options import Options
from canet_ros.bags.results import image_from_cdr, image_messages
from canet_ros.formats import parse_groups
from canet_ros.messages.video import VideoFrame
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.outputs import image_outputs
from canet_ros.pipeline.process import Frame, process
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.temporal_filter import TemporalFilter


@dataclass(frozen=True)
class FrameResult:
    """Results of one frame, or why it cannot be decoded.

    Attributes:
        header: std_msgs/Header of its message.
        size: (width, height) of the results.
        results: CDR by output.
        advice: what would give better results; empty: nothing.
    """

    header: Any = None
    size: tuple[int, int] = (0, 0)
    results: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""
    advice: str = ""


@dataclass(frozen=True)
class FilterTurn:
    """Runs the temporal filter over a camera's frames in order, although threads process them in parallel."""

    before: Future[TemporalFilter]
    after: Future[TemporalFilter]

    @classmethod
    def behind(cls, before: Future[TemporalFilter] | None) -> FilterTurn:
        return cls(before or _completed(TemporalFilter()), Future())

    def take(self, segmentation: Segmentation, stamp_ns: int) -> Segmentation:
        """Filter this frame, once the previous frame of its camera has been filtered."""
        temporal_filter = copy.copy(self.before.result())
        shown = temporal_filter(segmentation, stamp_ns)
        self.after.set_result(temporal_filter)
        return shown


def _completed(temporal_filter: TemporalFilter) -> Future[TemporalFilter]:
    future: Future[TemporalFilter] = Future()
    future.set_result(temporal_filter)
    return future


_IDENTITY = CameraTransform()


class FrameProcessor:
    """Decodes, segments and encodes one frame; safe to call from several threads."""

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self._segmenter = segmenter
        self._engine_is_free = threading.Semaphore(segmenter.engine.streams)
        self._options = options
        self._process_options = options.process_options(
            segmenter.spec.classes, at_network_size=options.mask_size == "network"
        )
        self._outputs = image_outputs(parse_groups(options.groups))

    def __call__(
        self,
        message: Message,
        turn: FilterTurn | None = None,
        transform: CameraTransform = _IDENTITY,
        video: VideoFrame | None = None,
    ) -> FrameResult:
        try:
            return self._made(message, turn, transform, video)
        finally:
            # After an error the next frame must not wait forever.
            if turn is not None and not turn.after.done():
                turn.after.set_result(turn.before.result())

    def _made(
        self, message: Message, turn: FilterTurn | None, transform: CameraTransform, video: VideoFrame | None
    ) -> FrameResult:
        try:
            header, image = image_from_cdr(message.data, message.connection.msgtype, video)
            frame = Frame(image, header_stamp_ns(header), transform, None if turn is None else turn.take)
            to_network = transform.to_network(image)
        except ValueError as error:  # ImageMessageError, or too small for the camera's region
            return FrameResult(problem=str(error))
        (drawing,) = process([frame], self._segment, self._process_options)
        options = self._options
        results = image_messages(header, drawing, self._outputs, options.outputs, options.jpeg_quality)
        height, width = drawing.segmentation.mask.shape
        advice = squeeze_warning(self._segmenter.resolution, (to_network.shape[1], to_network.shape[0]))
        return FrameResult(header, (width, height), results, advice=advice)

    def _segment(self, images: Sequence[NDArray[np.uint8]]) -> list[Segmentation]:
        with self._engine_is_free:
            return self._segmenter.infer(images)


class FrameProcessorPool:
    """Thread pool that decodes, segments and encodes frames. Use as a context manager.

    Args:
        transforms: camera transform by topic; default: none.

    Attributes:
        prefetch: number of frames to submit before waiting for the first result.
    """

    def __init__(
        self, segmenter: Segmenter, options: Options, transforms: Mapping[str, CameraTransform]
    ) -> None:
        # One more than the engine's streams: decoding and encoding overlap with inference.
        workers = segmenter.engine.streams + 1
        self.prefetch = workers + 1
        self._transforms = transforms
        self._make = FrameProcessor(segmenter, options)
        self._steady = options.steady
        self._completed: dict[str, Future[TemporalFilter]] = {}
        self._pool = ThreadPoolExecutor(workers, "frames")

    def __enter__(self) -> FrameProcessorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin_file(self) -> None:
        """Reset the temporal filter of each camera."""
        self._completed = {}

    def submit(self, message: Message, video: VideoFrame | None = None) -> Future[FrameResult]:
        """Process an image message; ``video`` is the decoded frame of a video message."""
        topic, turn = message.connection.topic, None
        if self._steady:
            # The pool starts frames in order, so the frame that is waited for is already running.
            turn = FilterTurn.behind(self._completed.get(topic))
            self._completed[topic] = turn.after
        transform = self._transforms.get(topic, _IDENTITY)
        return self._pool.submit(self._make, message, turn, transform, video)
