# SPDX-License-Identifier: Apache-2.0
"""Pictures of a bag at work, in threads of this process.

What is made of a picture depends on nothing else, but for ``steady`` on the same camera's pictures before.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import stamp_of
from canet_ros.bags.options import Options
from canet_ros.bags.results import frame_of, picture_messages
from canet_ros.formats import parse_groups
from canet_ros.inference.palette import recolored
from canet_ros.inference.segmenter import Segmentation, Segmenter
from canet_ros.inference.steadying import Steadying
from canet_ros.inference.view import View
from canet_ros.messages.pictures import Style
from canet_ros.pipeline.outputs import picture_outputs
from canet_ros.pipeline.process import Frame, ProcessOptions, process


@dataclass(frozen=True)
class Picture:
    """What was made of a picture, or why it cannot be decoded.

    Attributes:
        stamp_ns, frame_id: of its header.
        size: (width, height) of the results.
        results: CDR by output.
    """

    stamp_ns: int = 0
    frame_id: str = ""
    size: tuple[int, int] = (0, 0)
    results: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Turn:
    """A picture's turn among those of its camera: what the one before showed, and what this one leaves to the next."""

    before: Future[Steadying]
    after: Future[Steadying]

    @classmethod
    def behind(cls, before: Future[Steadying] | None) -> Turn:
        return cls(before or _shown(Steadying()), Future())

    def take(self, segmentation: Segmentation, stamp_ns: int) -> Segmentation:
        """What is shown of this picture, once the one before is known."""
        steadying = copy.copy(self.before.result())
        shown = steadying(segmentation, stamp_ns)
        self.after.set_result(steadying)
        return shown


def _shown(steadying: Steadying) -> Future[Steadying]:
    future: Future[Steadying] = Future()
    future.set_result(steadying)
    return future


_PLAIN = View()


class PictureMaker:
    """Makes of a message all that is written of it; as many threads at once as the engine has streams, and more."""

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self._segmenter = segmenter
        self._engine_is_free = threading.Semaphore(segmenter.engine.streams)
        self._options = options
        style = Style(recolored(segmenter.spec.classes, options.palette), options.legend)
        self._process_options = ProcessOptions(
            style, options.mask_size == "network", options.min_confidence, options.overlay_alpha
        )
        self._pictures = picture_outputs(parse_groups(options.groups))

    def __call__(self, data: bytes, msgtype: str, turn: Turn | None = None, view: View = _PLAIN) -> Picture:
        try:
            return self._made(data, msgtype, turn, view)
        finally:
            # No picture, or no engine: the next is not kept waiting.
            if turn is not None and not turn.after.done():
                turn.after.set_result(turn.before.result())

    def _made(self, data: bytes, msgtype: str, turn: Turn | None, view: View) -> Picture:
        try:
            header, image = frame_of(data, msgtype)
            frame = Frame(image, stamp_of(header), view, None if turn is None else turn.take)
            view.seen(image)
        except ValueError as error:  # ImageMessageError, or too small for the camera's region
            return Picture(problem=str(error))
        (drawing,) = process([frame], self._segment, self._process_options)
        options = self._options
        results = picture_messages(header, drawing, self._pictures, options.outputs, options.jpeg_quality)
        height, width = drawing.segmentation.mask.shape
        return Picture(frame.stamp_ns, str(header.frame_id), (width, height), results)

    def _segment(self, images: Sequence[NDArray[np.uint8]]) -> list[Segmentation]:
        with self._engine_is_free:
            return self._segmenter.segment_batch(images)


class ThreadedWork:
    """Where pictures are decoded, segmented and encoded. Use as a context manager.

    Attributes:
        classes: of the model.
        ahead: how many pictures may be in work before the first is asked for.
        views: how cameras are looked at, by topic; those that are not there as they come.
    """

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self.classes = segmenter.spec.classes
        # While the engine has its pictures in work, others are decoded and encoded.
        workers = segmenter.engine.streams + 1
        self.ahead = workers + 1
        self.views: Mapping[str, View] = {}
        self._make = PictureMaker(segmenter, options)
        self._steady = options.steady
        self._shown: dict[str, Future[Steadying]] = {}
        self._pool = ThreadPoolExecutor(workers, "pictures")

    def __enter__(self) -> ThreadedWork:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin_file(self) -> None:
        """With ``steady`` the next picture of each camera is the first one that is shown."""
        self._shown = {}

    def submit(self, message: Message) -> Future[Picture]:
        topic, turn = message.connection.topic, None
        if self._steady:
            # The pool begins with pictures in their order: whoever waits for another's turn, waits for one at work.
            turn = Turn.behind(self._shown.get(topic))
            self._shown[topic] = turn.after
        view = self.views.get(topic, _PLAIN)
        return self._pool.submit(self._make, message.data, message.connection.msgtype, turn, view)
