# SPDX-License-Identifier: Apache-2.0
"""Segments a bag: copies it and adds the topics that the node would publish.

Reading, decoding, inference, encoding and writing overlap; the output does not depend on their timing. Each file of OUT
depends only on what IN holds from its first to its last time, and on the last camera_info before.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path

import canet_ros
from canet_ros.bags.bag import BagError, Connection, Message
from canet_ros.bags.camera_messages import CameraMessages
from canet_ros.bags.cameras import BagCamera, Window, choose_cameras
from canet_ros.bags.frame_processing import FrameProcessorPool, FrameResult, result_connection
from canet_ros.bags.images import VideoTopics, image_messages
from canet_ros.bags.message_types import label_info, stamp_in, with_definition
from canet_ros.bags.metadata import about
from canet_ros.bags.options import Options
from canet_ros.bags.output import Output, check_paths, input_files, writing_to
from canet_ros.bags.progress import Progress
from canet_ros.bags.reading import Bag, latched, open_bag
from canet_ros.launching.parameter_spec import ONE_PER_CAMERA, conflict
from canet_ros.model.palette import recolored
from canet_ros.pipeline.camera_segmenter import CameraShapedSegmenter
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.outputs import LABEL_INFO
from canet_ros.pipeline.segmenter import Segmenter

LABEL_REPEAT_NS = 10 * 10**9
Report = Callable[[Bag, Progress], None]
_Step = tuple[Message, BagCamera | None, Future[FrameResult] | None]


def segment_bag(
    source: Path,
    out: Path,
    segmenter: Segmenter,
    options: Options,
    resume: bool = False,
    force: bool = False,
    report: Report = lambda bag, progress: None,
) -> Progress:
    """Write ``out``: the bag ``source`` with the results of each camera.

    Args:
        source: folder or file.
        out: folder to create, or a file if it ends in .mcap.
        report: called after each image.

    Raises:
        BagError: the bag cannot be read or written, or contains nothing to segment; ``out`` is then not created.
        ValueError: the options do not fit the model.
    """
    options.process_options(segmenter.spec.classes)  # checks them before any work
    check_paths(source, out)
    output = Output(out, resume, force)
    try:
        with open_bag(source, output.work) as bag:
            if bag.is_empty:
                because = "; ".join(bag.losses.problems)
                raise BagError(f"{source} contains no messages{because and f': {because}'}")
            progress = Progress()
            window = options.window(bag.start_ns, bag.end_ns)
            cameras = choose_cameras(bag, options.topics, progress.note, window)
            transforms = _transforms(cameras, options)
            for camera in reversed(cameras):  # the first one is the last, whose engine the metadata names
                _prepare(bag, camera, transforms[camera.topic], segmenter, progress.note)
            provenance = _provenance(segmenter, options)
            identity = {"input": input_files(source), "options": asdict(options), "model": provenance}
            custom = {**bag.custom, **{f"canet_ros.{key}": value for key, value in provenance.items()}}
            state = output.begin(identity, about(custom, bag.distribution))
            begin_ns = window[0]
            if state is not None:
                progress = Progress.from_json(state)
                begin_ns = progress.next_ns
            run = _Run(bag, cameras, transforms, segmenter, options, output, progress, report)
            if state is None or begin_ns is not None:
                for file in _files(bag, options, (begin_ns, window[1]), output.is_single_file):
                    run.write_file(*file, after_cut=state is None and file[0] == window[0] is not None)
            progress.losses.merge(bag.losses)
            if bag.jumps_back:
                progress.note("recorded times jump back: the messages are sorted by time")
            if not progress.segmented:
                output.discard()
                raise BagError(_nothing(source, progress, cameras))
            output.finish()
    except BaseException:
        output.suspend()
        raise
    return progress


def _files(bag: Bag, options: Options, window: Window, whole: bool) -> Iterator[Window]:
    """Yield start and end of each file of OUT: where a file of IN begins, or as ``options`` say; ``whole``: one."""
    start_ns, end_ns = window
    if whole:
        yield window
        return
    blocks = sorted((block.start_ns, block.size) for block, _ in bag.blocks_with(None))
    begins = {min(block.start_ns for block in file.blocks) for file in bag.files if file.blocks}
    size = 0
    for begin_ns, block_size in blocks:
        if options.split_mb and size >= options.split_mb * 1e6:
            begins.add(begin_ns)
        size = block_size if begin_ns in begins else size + block_size
    while (first := next(bag.messages(start_ns, end_ns), None)) is not None:
        ends = [begin_ns for begin_ns in begins if begin_ns > first.log_ns]
        ends += [first.log_ns + options.split_ns] if options.split_ns else []
        ends += [] if end_ns is None else [end_ns]
        stop_ns = min(ends, default=None)
        yield start_ns, stop_ns
        if stop_ns is None:
            return
        start_ns = stop_ns


class _Run:
    """Segments one opened bag."""

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        transforms: Mapping[str, CameraTransform],
        segmenter: Segmenter,
        options: Options,
        output: Output,
        progress: Progress,
        report: Report,
    ) -> None:
        self._bag, self._cameras, self._transforms = bag, cameras, transforms
        self._segmenter, self._options = segmenter, options
        self._output, self._progress, self._report = output, progress, report
        self._classes = recolored(segmenter.spec.classes, options.palette)
        self._results = {
            (camera.topic, name): result_connection(camera.results, name, bag.distribution)
            for camera in cameras
            for name in options.outputs
        }
        replaced = {connection.topic for connection in self._results.values()}
        copied = [] if options.only_results else bag.connections
        self._copied = {c: _completed(c, bag) for c in copied if c.topic not in replaced}
        for topic in sorted({c.topic for c in bag.connections} & replaced):
            progress.note(f"{topic} exists in the input and is replaced")
        progress.cameras = len(cameras)

    def write_file(self, start_ns: int | None, end_ns: int | None, after_cut: bool) -> None:
        """Write the next file of OUT: what IN holds from ``start_ns`` to before ``end_ns``, with the results.

        Args:
            after_cut: begin with the latched messages that a subscriber joining at ``start_ns`` would receive.
        """
        bag, options, progress = self._bag, self._options, self._progress
        with writing_to(self._output.partial):
            self._writer = self._output.open_file()
            for connection in (*self._copied.values(), *self._results.values()):
                self._writer.add(connection)
        self._next_label_ns: int | None = None
        self._beside = CameraMessages(bag, self._cameras, options, progress, start_ns, self._put)
        if after_cut and start_ns is not None:
            for message in latched(bag, start_ns):
                self._write(message._replace(log_ns=start_ns, publish_ns=start_ns), None, None)
        self._write_messages(start_ns, end_ns)
        progress.next_ns = end_ns
        with writing_to(self._output.partial):
            self._beside.finish(progress.log_ns)
            progress.losses.merge(bag.losses)
            self._output.finish_file(self._writer, asdict(progress), None if options.only_results else bag)

    def _write_messages(self, start_ns: int | None, end_ns: int | None) -> None:
        """Write the messages in their order, behind the images that the pool processes."""
        cameras = {camera.connection.stream: camera for camera in self._cameras}
        seen = dict.fromkeys(cameras, (0, -1))
        videos = VideoTopics(self._bag, cameras, start_ns, end_ns)
        pending: deque[_Step] = deque()
        with FrameProcessorPool(self._segmenter, self._options, self._transforms) as pool:
            in_work = 0
            for message in self._bag.messages(start_ns, end_ns):
                stream, result = message.connection.stream, None
                if stream in cameras:
                    count, slot = seen[stream]
                    is_wanted, slot = self._is_wanted(count, slot, message.log_ns)
                    seen[stream] = count + 1, slot
                    video = videos.frame(message)
                    result = pool.submit(message, video) if is_wanted else None
                pending.append((message, cameras.get(stream), result))
                in_work += result is not None
                while pending and (
                    (first := pending[0][2]) is None or first.done() or in_work > pool.prefetch
                ):
                    self._write(*pending.popleft())
                    in_work -= first is not None
            while pending:
                self._write(*pending.popleft())

    def _is_wanted(self, count: int, slot: int, log_ns: int) -> tuple[bool, int]:
        """Whether the image is segmented, and the time slot of the last segmented one."""
        if count % self._options.every:
            return False, slot
        if self._options.camera_rate_hz <= 0:
            return True, slot
        now = int(log_ns * self._options.camera_rate_hz // 1e9)
        return now != slot, now

    def _write(
        self, message: Message, camera: BagCamera | None, submitted: Future[FrameResult] | None
    ) -> None:
        progress = self._progress
        result = None if submitted is None else submitted.result()
        with writing_to(self._output.partial):
            self._write_label_info(message.log_ns)
            if (copied := self._copied.get(message.connection)) is not None:
                self._writer.write(message._replace(connection=copied))
            self._beside.take(message)
            progress.read, progress.log_ns = progress.read + 1, message.log_ns
            if camera is None or result is None:
                return
            if result.problem:
                progress.skip(camera.topic, stamp_in(message.data) or message.log_ns, result.problem)
                return
            for name, data in result.results.items():
                self._put(camera, name, message.log_ns, data)
            progress.segmented += 1
            self._beside.write_for(camera, message.log_ns, result)
        self._report(self._bag, progress)

    def _put(self, camera: BagCamera, name: str, log_ns: int, data: bytes) -> None:
        self._writer.write(Message(self._results[camera.topic, name], log_ns, log_ns, 0, data))

    def _write_label_info(self, log_ns: int) -> None:
        due_ns = self._next_label_ns
        if due_ns is not None and due_ns - LABEL_REPEAT_NS <= log_ns < due_ns:
            return
        self._next_label_ns = log_ns + LABEL_REPEAT_NS
        if LABEL_INFO in self._options.outputs:
            data = label_info(self._classes, log_ns, self._options.min_confidence)
            for camera in self._cameras:
                self._put(camera, LABEL_INFO, log_ns, data)


def _completed(connection: Connection, bag: Bag) -> Connection:
    type_hash = connection.type_hash or bag.type_hashes.get(connection.msgtype, "")
    return with_definition(replace(connection, type_hash=type_hash), bag.distribution)


def _transforms(cameras: Sequence[BagCamera], options: Options) -> dict[str, CameraTransform]:
    """Camera transform by topic."""
    per_camera = {name: getattr(options, name, ()) for name in ONE_PER_CAMERA}
    given = [f"--{name.replace('_', '-')}" for name, values in per_camera.items() if values]
    if given and len(cameras) > 1 and not options.topics:
        raise BagError(
            f"{len(cameras)} cameras, and an entry for each of --topics in {', '.join(given)}: "
            f"give --topics {' '.join(camera.topic for camera in cameras)}"
        )
    if problem := conflict({"image_topics": cameras, **per_camera}):
        raise BagError(problem)
    return dict(zip((camera.topic for camera in cameras), options.camera_transforms(len(cameras))))


def _prepare(
    bag: Bag,
    camera: BagCamera,
    transform: CameraTransform,
    segmenter: Segmenter,
    note: Callable[[str], None],
) -> None:
    """Load the engine whose resolution follows from the camera's first image, or note that it does not fit."""
    for _, decode in image_messages(bag, {camera.connection.stream}):
        with contextlib.suppress(ValueError):  # the pool reports it
            seen = transform.to_network(decode()[1])
            if isinstance(segmenter, CameraShapedSegmenter):
                segmenter.infer([seen])
            elif advice := squeeze_warning(segmenter.resolution, (seen.shape[1], seen.shape[0])):
                note(f"{camera.topic}: {advice}")
            return


def _provenance(segmenter: Segmenter, options: Options) -> dict[str, str]:
    return {
        "version": canet_ros.__version__,
        "model": segmenter.spec.name,
        "model_sha256": segmenter.graph_hash,
        "engine": segmenter.engine.name,
        "precision": segmenter.engine.precision,
        "device": segmenter.engine.device,
        "resolution": segmenter.resolution_text,
        "options": json.dumps(asdict(options)),
    }


def _nothing(source: Path, progress: Progress, cameras: Sequence[BagCamera]) -> str:
    topics = ", ".join(camera.topic for camera in cameras)
    if progress.undecodable:
        _, _, problem = progress.undecodable_frames[0]
        return f"none of the {progress.undecodable} images on {topics} could be decoded: {problem}"
    return f"{source} contains no images on {topics} in this time range"
