# SPDX-License-Identifier: Apache-2.0
"""Processes the frames of a bag in threads, to the messages that the node would publish.

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

from canet_ros.bags.bag import CAMERA_INFO as CAMERA_INFO_TYPE
from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE, Connection, Message
from canet_ros.bags.images import image_from_cdr
from canet_ros.bags.message_types import LABEL_INFO as LABEL_INFO_TYPE
from canet_ros.bags.message_types import connection, header_stamp_ns, new, to_cdr
from canet_ros.bags.options import Options
from canet_ros.bags.qos import profile
from canet_ros.formats import parse_groups
from canet_ros.messages.images import encode_compressed, image_fields
from canet_ros.messages.results import MESSAGE_OUTPUTS, POINT_CLOUD
from canet_ros.messages.video import VideoFrame
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.class_shares import ShareFilter
from canet_ros.pipeline.outputs import (
    CAMERA_INFO,
    LABEL_INFO,
    SHARES,
    ImageOutput,
    RenderInput,
    image_outputs,
    is_cloud,
    render,
)
from canet_ros.pipeline.process import Frame, postprocess
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


class FrameProcessorPool:
    """Thread pool that decodes, segments and encodes the frames of one file of OUT. Use as a context manager.

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
        self._segmenter, self._options, self._transforms = segmenter, options, transforms
        self._engine_is_free = threading.Semaphore(segmenter.engine.streams)
        self._process_options = options.process_options(
            segmenter.spec.classes, options.mask_size == "network", options.min_object_area
        )
        self._outputs = image_outputs(parse_groups(options.groups))
        self._temporal = {topic: TemporalFilter() if options.steady else None for topic in transforms}
        self._shares = {topic: ShareFilter(options.shares_smoothing) for topic in transforms}
        self._in_order = options.steady or SHARES in options.outputs
        self._filtered: dict[str, threading.Event] = {}  # by topic: the filters have taken the last frame
        self._pool = ThreadPoolExecutor(workers, "frames")

    def __enter__(self) -> FrameProcessorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, message: Message, video: VideoFrame | None = None) -> Future[FrameResult]:
        """Process an image message; ``video`` is the decoded frame of a video message."""
        topic, filtered = message.connection.topic, threading.Event()
        before = self._filtered.get(topic)
        if self._in_order:
            self._filtered[topic] = filtered
        return self._pool.submit(self._process, message, video, before, filtered)

    def _process(
        self,
        message: Message,
        video: VideoFrame | None,
        before: threading.Event | None,
        filtered: threading.Event,
    ) -> FrameResult:
        """Process a frame; ``before``: the filters have taken the preceding frame, which the pool started earlier."""
        topic, options = message.connection.topic, self._options
        transform = self._transforms[topic]
        try:
            header, image = image_from_cdr(message.data, message.connection.msgtype, video)
            with self._engine_is_free:
                (found,) = self._segmenter.infer([transform.to_network(image)])
            if before is not None:
                before.wait()
            stamp_ns = header_stamp_ns(header)
            frame = Frame(image, stamp_ns, transform, self._temporal[topic], self._shares[topic])
            drawing = postprocess(frame, found, self._process_options)
            if SHARES in options.outputs:
                shares = drawing.shares()  # in this frame's turn, not when they are rendered
                drawing = replace(drawing, shares=lambda: shares)
        except ValueError as error:  # ImageMessageError, or too small for the camera's region
            return FrameResult(problem=str(error))
        finally:
            if before is not None:
                before.wait()
            filtered.set()
        results = frame_messages(header, drawing, self._outputs, options.outputs, options.jpeg_quality)
        height, width = drawing.segmentation.mask.shape
        with_clouds = drawing if any(map(is_cloud, options.outputs)) else None
        return FrameResult(header, (width, height), results, with_clouds)


def result_connection(results: str, output: str, distribution: str) -> Connection:
    """The topic of an output under a camera's prefix."""
    if output == LABEL_INFO:
        qos = profile("RELIABLE", "TRANSIENT_LOCAL", depth=1)
        return connection(f"{results}/{output}", LABEL_INFO_TYPE, qos, distribution)
    if output == CAMERA_INFO:
        msgtype = CAMERA_INFO_TYPE
    elif output in MESSAGE_OUTPUTS:
        msgtype = MESSAGE_OUTPUTS[output].msgtype
    elif is_cloud(output):
        msgtype = POINT_CLOUD
    else:
        msgtype = COMPRESSED_IMAGE if output.endswith("/compressed") else IMAGE
    return connection(f"{results}/{output}", msgtype, profile("RELIABLE", "VOLATILE", depth=2), distribution)


def frame_messages(
    header: Any,
    drawing: RenderInput,
    image_outputs: Mapping[str, ImageOutput],
    outputs: Sequence[str],
    jpeg_quality: int,
) -> dict[str, bytes]:
    """CDR of the outputs that are rendered from one frame.

    Args:
        header: std_msgs/Header of the camera's message, which every result carries.
    """
    messages = {}
    for name, output, pixels, raw, compressed in render(drawing, image_outputs, outputs):
        if raw:
            fields = image_fields(pixels, output.encoding)
            message = new(IMAGE, header=header, **fields, data=np.ascontiguousarray(pixels).reshape(-1))
            messages[name] = to_cdr(message, IMAGE)
        if compressed:
            text, data = encode_compressed(pixels, output.encoding, output.codec, jpeg_quality)
            message = new(COMPRESSED_IMAGE, header=header, format=text, data=data.reshape(-1))
            messages[f"{name}/compressed"] = to_cdr(message, COMPRESSED_IMAGE)
    for name in MESSAGE_OUTPUTS.keys() & outputs:
        msgtype, build = MESSAGE_OUTPUTS[name]
        messages[name] = to_cdr(build(new, header, drawing), msgtype)
    return messages
