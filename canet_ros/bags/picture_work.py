# SPDX-License-Identifier: Apache-2.0
"""Pictures of a bag at work: in threads of this process here, in other processes in ``on_ray``.

What is made of a picture depends on nothing else, but for ``steady`` on the same camera's pictures before.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import stamp_of
from canet_ros.bags.options import Options
from canet_ros.bags.results import Look, frame_of, picture_messages
from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.palette import recolored
from canet_ros.inference.segmenter import Segmenter
from canet_ros.inference.steadying import Steadying
from canet_ros.messages.images import ImageError
from canet_ros.messages.pictures import Style


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


class Awaited(Protocol):
    """A picture that is in work."""

    def result(self) -> Picture: ...


class PictureWork(Protocol):
    """Where pictures are decoded, segmented and encoded.

    Attributes:
        classes: of the model.
        ahead: how many pictures may be in work before the first is asked for.
    """

    classes: ClassTable
    ahead: int

    def submit(self, message: Message) -> Awaited: ...

    def begin_file(self) -> None:
        """With ``steady`` the next picture of each camera is the first one that is shown."""
        ...


@dataclass(frozen=True)
class Turn:
    """A picture's turn among those of its camera: what the one before showed, and what this one leaves to the next."""

    before: Future[Steadying]
    after: Future[Steadying]

    @classmethod
    def behind(cls, before: Future[Steadying] | None) -> Turn:
        return cls(before or _shown(Steadying()), Future())


def _shown(steadying: Steadying) -> Future[Steadying]:
    future: Future[Steadying] = Future()
    future.set_result(steadying)
    return future


class PictureMaker:
    """Makes of a message all that is written of it; as many threads at once as the engine has streams, and more."""

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self._segmenter = segmenter
        self._engine_is_free = threading.Semaphore(segmenter.engine.streams)
        self._options = options
        style = Style(recolored(segmenter.spec.classes, options.palette), options.legend)
        self._look = Look(style, options.overlay_alpha, options.jpeg_quality)

    def __call__(self, data: bytes, msgtype: str, turn: Turn | None = None) -> Picture:
        try:
            return self._made(data, msgtype, turn)
        finally:
            # No picture, or no engine: the next is not kept waiting.
            if turn is not None and not turn.after.done():
                turn.after.set_result(turn.before.result())

    def _made(self, data: bytes, msgtype: str, turn: Turn | None) -> Picture:
        try:
            header, image = frame_of(data, msgtype)
        except ImageError as error:
            return Picture(problem=str(error))
        with self._engine_is_free:
            (segmentation,) = self._segmenter.segment_batch([image])
            of_network = self._options.mask_size == "network"
            size = self._segmenter.resolution if of_network else (image.shape[1], image.shape[0])
        stamp = stamp_of(header)
        if turn is not None:
            steadying = copy.copy(turn.before.result())
            segmentation = steadying(segmentation, stamp)
            turn.after.set_result(steadying)
        results = picture_messages(self._options.outputs, header, image, segmentation, size, self._look)
        return Picture(stamp, str(header.frame_id), size, results)


class ThreadedWork:
    """Pictures in threads of this process. Use as a context manager."""

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self.classes = segmenter.spec.classes
        # While the engine has its pictures in work, others are decoded and encoded.
        workers = segmenter.engine.streams + 1
        self.ahead = workers + 1
        self._make = PictureMaker(segmenter, options)
        self._steady = options.steady
        self._shown: dict[str, Future[Steadying]] = {}
        self._pool = ThreadPoolExecutor(workers, "pictures")

    def __enter__(self) -> ThreadedWork:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin_file(self) -> None:
        self._shown = {}

    def submit(self, message: Message) -> Awaited:
        topic, turn = message.connection.topic, None
        if self._steady:
            # The pool begins with pictures in their order: whoever waits for another's turn, waits for one at work.
            turn = Turn.behind(self._shown.get(topic))
            self._shown[topic] = turn.after
        return self._pool.submit(self._make, message.data, message.connection.msgtype, turn)
