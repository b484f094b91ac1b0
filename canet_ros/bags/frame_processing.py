# SPDX-License-Identifier: Apache-2.0
"""Processes the frames of a bag in threads.

The results of a frame depend on that frame only, except with ``steady`` and the output ``shares``, which also use
earlier frames of its camera.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import header_stamp_ns
from canet_ros.bags.options import Options
from canet_ros.bags.results import frame_messages, image_from_cdr
from canet_ros.formats import parse_groups
from canet_ros.messages.video import VideoFrame
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.class_shares import ShareFilter
from canet_ros.pipeline.outputs import SHARES, RenderInput, image_outputs, is_cloud
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
        drawing: for outputs that need messages beside the image; None: there are none.
    """

    header: Any = None
    size: tuple[int, int] = (0, 0)
    results: Mapping[str, bytes] = field(default_factory=dict)
    drawing: RenderInput | None = None
    problem: str = ""


class _FilterTurn:
    """A frame's turn at the filters of its camera, in the order of submission.

    Args:
        earlier: the turn of the camera's previous frame.
    """

    def __init__(self, earlier: _FilterTurn | None, shares_smoothing_s: float) -> None:
        self._ended = threading.Event()
        self._may_begin: threading.Event | None
        if earlier is None:
            self._may_begin = None
            self._filters = TemporalFilter(), ShareFilter(shares_smoothing_s)
        else:
            self._may_begin, self._filters = earlier._ended, earlier._filters

    def temporal_filter(self, segmentation: Segmentation, stamp_ns: int) -> Segmentation:
        self._wait()
        return self._filters[0](segmentation, stamp_ns)

    def share_filter(self, shares: NDArray[np.float32], stamp_ns: int) -> NDArray[np.float32]:
        self._wait()
        return self._filters[1](shares, stamp_ns)

    def end(self) -> None:
        """Let the next frame begin; must follow, also if the frame could not be segmented."""
        self._wait()
        self._ended.set()

    def _wait(self) -> None:
        if self._may_begin is not None:
            self._may_begin.wait()


class FrameProcessorPool:
    """Thread pool that decodes, segments and encodes frames. Use as a context manager.

    Args:
        transforms: camera transform by topic.

    Attributes:
        prefetch: number of frames to submit before waiting for the first result.
    """

    def __init__(
        self, segmenter: Segmenter, options: Options, transforms: Mapping[str, CameraTransform]
    ) -> None:
        # One more than the engine's streams: decoding and encoding overlap with inference.
        workers = segmenter.engine.streams + 1
        self.prefetch = workers + 1
        self._segmenter = segmenter
        self._engine_is_free = threading.Semaphore(segmenter.engine.streams)
        self._options = options
        self._process_options = options.process_options(
            segmenter.spec.classes, options.mask_size == "network", options.min_object_area
        )
        self._outputs = image_outputs(parse_groups(options.groups))
        self._transforms = transforms
        self._turns: dict[str, _FilterTurn] = {}
        self._pool = ThreadPoolExecutor(workers, "frames")

    def __enter__(self) -> FrameProcessorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin_file(self) -> None:
        """Reset the filters of each camera."""
        self._turns = {}

    def submit(self, message: Message, video: VideoFrame | None = None) -> Future[FrameResult]:
        """Process an image message; ``video`` is the decoded frame of a video message."""
        topic, turn = message.connection.topic, None
        if self._options.steady or SHARES in self._options.outputs:
            # The pool starts frames in order, so the frame that is waited for is already running.
            turn = _FilterTurn(self._turns.get(topic), self._options.shares_smoothing)
            self._turns[topic] = turn
        return self._pool.submit(self._process, message, video, turn)

    def _process(self, message: Message, video: VideoFrame | None, turn: _FilterTurn | None) -> FrameResult:
        transform, options = self._transforms[message.connection.topic], self._options
        try:
            header, image = image_from_cdr(message.data, message.connection.msgtype, video)
            frame = Frame(
                image,
                header_stamp_ns(header),
                transform,
                turn.temporal_filter if turn and options.steady else None,
                turn.share_filter if turn and SHARES in options.outputs else None,
            )
            (drawing,) = process([frame], self._infer, self._process_options)
            if SHARES in options.outputs:
                shares = drawing.shares()  # in this turn, not when they are rendered
                drawing = replace(drawing, shares=lambda: shares)
        except ValueError as error:  # ImageMessageError, or too small for the camera's region
            return FrameResult(problem=str(error))
        finally:
            if turn is not None:
                turn.end()
        results = frame_messages(header, drawing, self._outputs, options.outputs, options.jpeg_quality)
        height, width = drawing.segmentation.mask.shape
        with_clouds = drawing if any(map(is_cloud, options.outputs)) else None
        return FrameResult(header, (width, height), results, with_clouds)

    def _infer(self, images: Sequence[NDArray[np.uint8]]) -> list[Segmentation]:
        with self._engine_is_free:
            return self._segmenter.infer(images)
