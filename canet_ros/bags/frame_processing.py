# SPDX-License-Identifier: Apache-2.0
"""Processes the frames of a bag in threads.

The results of a frame depend on that frame only, except masks with ``steady`` and ``shares``, which also depend on
earlier frames of its camera.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import header_stamp_ns
from canet_ros.bags.options import Options
from canet_ros.bags.results import frame_messages, image_from_cdr
from canet_ros.formats import parse_groups
from canet_ros.messages.video import VideoFrame
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.class_shares import ShareFilter
from canet_ros.pipeline.drawing import SHARES, RenderInput
from canet_ros.pipeline.outputs import image_outputs, is_cloud
from canet_ros.pipeline.process import Frame, process
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.temporal_filter import TemporalFilter

# A TemporalFilter or a ShareFilter: what was found and the stamp in ns to what is shown.
Filter = Callable[[Any, int], Any]


@dataclass(frozen=True)
class FrameResult:
    """Results of one frame, or why it cannot be decoded.

    Attributes:
        header: std_msgs/Header of its message.
        size: (width, height) of the results.
        results: CDR by output.
        drawing: for outputs that need messages beside the image; None: there are none.
        advice: what would give better results; empty: nothing.
    """

    header: Any = None
    size: tuple[int, int] = (0, 0)
    results: Mapping[str, bytes] = field(default_factory=dict)
    drawing: RenderInput | None = None
    problem: str = ""
    advice: str = ""


@dataclass(frozen=True)
class FilterTurn:
    """Runs a filter over a camera's frames in order, although threads process them in parallel."""

    before: Future[Filter]
    after: Future[Filter] = field(default_factory=Future)

    def __call__(self, found: Any, stamp_ns: int) -> Any:
        """Filter this frame, once the previous frame of its camera has been filtered."""
        state = copy.copy(self.before.result())
        filtered = state(found, stamp_ns)
        self.after.set_result(state)
        return filtered

    def skip(self) -> None:
        """Let the next frame continue if this one was not filtered."""
        if not self.after.done():
            self.after.set_result(self.before.result())


_IDENTITY = CameraTransform()
_NO_TURNS: Mapping[str, FilterTurn] = {}


class FrameProcessor:
    """Decodes, segments and encodes one frame; safe to call from several threads."""

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self._segmenter = segmenter
        self._engine_is_free = threading.Semaphore(segmenter.engine.streams)
        self._options = options
        self._process_options = options.process_options(
            segmenter.spec.classes, options.mask_size == "network", options.min_object_area
        )
        self._outputs = image_outputs(parse_groups(options.groups))

    def __call__(
        self,
        message: Message,
        turns: Mapping[str, FilterTurn] = _NO_TURNS,
        transform: CameraTransform = _IDENTITY,
        video: VideoFrame | None = None,
    ) -> FrameResult:
        try:
            return self._made(message, turns, transform, video)
        finally:
            # After an error the next frame must not wait forever.
            for turn in turns.values():
                turn.skip()

    def _made(
        self,
        message: Message,
        turns: Mapping[str, FilterTurn],
        transform: CameraTransform,
        video: VideoFrame | None,
    ) -> FrameResult:
        try:
            header, image = image_from_cdr(message.data, message.connection.msgtype, video)
            frame = Frame(image, header_stamp_ns(header), transform, **turns)
            to_network = transform.to_network(image)
        except ValueError as error:  # ImageMessageError, or too small for the camera's region
            return FrameResult(problem=str(error))
        (drawing,) = process([frame], self._segment, self._process_options)
        options = self._options
        results = frame_messages(header, drawing, self._outputs, options.outputs, options.jpeg_quality)
        height, width = drawing.segmentation.mask.shape
        advice = squeeze_warning(self._segmenter.resolution, (to_network.shape[1], to_network.shape[0]))
        with_clouds = drawing if any(map(is_cloud, options.outputs)) else None
        return FrameResult(header, (width, height), results, with_clouds, advice=advice)

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
        # By the fields of ``Frame``.
        self._filters: dict[str, Callable[[], Filter]] = {}
        if options.steady:
            self._filters["temporal_filter"] = TemporalFilter
        if SHARES in options.outputs:
            self._filters["share_filter"] = functools.partial(ShareFilter, options.shares_smoothing)
        self._filtered: dict[tuple[str, str], Future[Filter]] = {}
        self._pool = ThreadPoolExecutor(workers, "frames")

    def __enter__(self) -> FrameProcessorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin_file(self) -> None:
        """Reset the filters of each camera."""
        self._filtered = {}

    def submit(self, message: Message, video: VideoFrame | None = None) -> Future[FrameResult]:
        """Process an image message; ``video`` is the decoded frame of a video message."""
        topic, turns = message.connection.topic, {}
        for name, new_filter in self._filters.items():
            # The pool starts frames in order, so the frame that is waited for is already running.
            turn = FilterTurn(self._filtered.get((topic, name)) or _completed(new_filter()))
            turns[name], self._filtered[topic, name] = turn, turn.after
        transform = self._transforms.get(topic, _IDENTITY)
        return self._pool.submit(self._make, message, turns, transform, video)


def _completed(first: Filter) -> Future[Filter]:
    future: Future[Filter] = Future()
    future.set_result(first)
    return future
