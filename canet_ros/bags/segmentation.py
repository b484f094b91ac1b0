# SPDX-License-Identifier: Apache-2.0
"""Segments a bag: copies it and adds the topics that the node would publish.

Reading, decoding, inference, encoding and writing overlap; the output does not depend on their timing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

import canet_ros
from canet_ros.bags.bag import BagError, Message
from canet_ros.bags.camera_infos import CameraInfos
from canet_ros.bags.cameras import BagCamera, choose_cameras
from canet_ros.bags.clouds import Clouds
from canet_ros.bags.frame_processing import FrameProcessorPool, FrameResult
from canet_ros.bags.latched import latched
from canet_ros.bags.message_types import label_info, stamp_in
from canet_ros.bags.options import Options
from canet_ros.bags.output import FileSplitter, Output, check_paths, input_files, writing_to
from canet_ros.bags.prefetch import prefetch
from canet_ros.bags.progress import CameraState, Progress
from canet_ros.bags.reading import Bag, completed, open_bag
from canet_ros.bags.results import image_from_cdr, result_connection
from canet_ros.bags.video import VideoTopics
from canet_ros.launching.parameter_spec import ONE_PER_CAMERA, conflict
from canet_ros.model.class_table import ClassTable
from canet_ros.model.palette import recolored
from canet_ros.pipeline.camera_segmenter import CameraShapedSegmenter
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.outputs import CAMERA_INFO, LABEL_INFO
from canet_ros.pipeline.segmenter import Segmenter

LABEL_REPEAT_NS = 10 * 10**9
_BATCH_BYTES, _BATCH_MESSAGES = 1 << 20, 256
_MAX_NAMED_FRAMES = 200


@dataclass
class _Step:
    """A message of the source and how it is processed."""

    message: Message
    camera: BagCamera | None = None
    begins_file: bool = False
    result: Future[FrameResult] | None = None


def segment_bag(
    source: Path,
    out: Path,
    segmenter: Segmenter,
    options: Options,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Bag, Progress], None] = lambda bag, progress: None,
) -> Progress:
    """Write ``out``: the bag ``source`` with the results of each camera.

    Args:
        source: folder or file.
        out: folder to create, or a file if it ends in .mcap.
        report: called after each batch of messages.

    Raises:
        BagError: the bag cannot be read or written, or contains nothing to segment; ``out`` is then not created.
        ValueError: the options do not fit the model.
    """
    options.process_options(segmenter.spec.classes)  # checks them before any work
    check_paths(source, out)
    output = Output(out, f"canet_ros {canet_ros.__version__}", resume, force)
    try:
        with open_bag(source, output.work) as bag:
            if bag.end_ns == 0 and all(file.start_ns is None for file in bag.files):
                because = "; ".join(bag.all_losses().problems)
                raise BagError(f"{source} contains no messages{because and f': {because}'}")
            notes = list(bag.notes)
            window = options.window(bag.start_ns, bag.end_ns)
            cameras = choose_cameras(bag, options.topics, notes.append, window)
            transforms = _transforms(cameras, options)
            for camera in reversed(cameras):  # the first one is the last, whose engine the metadata names
                _prepare(bag, camera, transforms[camera.topic], segmenter, notes.append)
            provenance = _provenance(segmenter, options)
            identity = {"input": input_files(source), "options": asdict(options), "model": provenance}
            custom = {**bag.custom, **{f"canet_ros.{key}": value for key, value in provenance.items()}}
            state = output.begin(identity, custom, bag.distribution)
            progress = Progress() if state is None else Progress.from_json(state)
            for sentence in notes:
                progress.note(sentence)
            with FrameProcessorPool(segmenter, options, transforms) as work:
                classes = recolored(segmenter.spec.classes, options.palette)
                _Run(bag, cameras, work, classes, options, output, progress, report).go(window)
            if not progress.segmented:
                output.discard()
                raise BagError(_nothing(source, progress, cameras))
            output.finish(None if options.only_results else bag)
            progress.losses = bag.all_losses()
    except BaseException:
        output.suspend()
        raise
    return progress


class _Run:
    """Segments one opened bag."""

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        work: FrameProcessorPool,
        classes: ClassTable,
        options: Options,
        output: Output,
        progress: Progress,
        report: Callable[[Bag, Progress], None],
    ) -> None:
        self._bag = bag
        self._cameras = {camera.connection.stream: camera for camera in cameras}
        with_infos = cameras if CAMERA_INFO in options.outputs else ()
        self._infos = CameraInfos(bag, with_infos, progress, self._put)
        self._clouds = Clouds(bag, cameras, options, progress, self._put)
        self._work = work
        self._options = options
        self._output = output
        self._progress = progress
        self._report = report
        self._classes = classes
        self._results = {
            (camera.topic, name): result_connection(camera.results, name, bag.distribution)
            for camera in cameras
            for name in options.outputs
        }
        self._replaced = {connection.topic for connection in self._results.values()}
        self._copied = {c: completed(c, bag) for c in bag.connections if c.topic not in self._replaced}
        self._next_label_ns: int | None = None
        for topic in sorted({c.topic for c in bag.connections} & self._replaced):
            progress.note(f"{topic} exists in the input and is replaced")
        for camera in cameras:
            progress.cameras.setdefault(camera.topic, CameraState())

    def go(self, window: tuple[int | None, int | None]) -> None:
        done = self._progress.read
        self._enter_topics()
        self._infos.load_initial(window[0])
        if window[0] is not None and not done:
            self._write_latched(window[0])
        batches = prefetch(self._batches(window, done), self._work.prefetch, "reading")
        read = 0
        try:
            for batch in batches:
                for step in batch:
                    read += 1
                    if step.begins_file and read <= done + 1:  # resumed
                        self._clouds.end_file(step.message.log_ns)
                    if read <= done:
                        self._infos.take(step.message)
                        self._clouds.take(step.message)
                        continue
                    with writing_to(self._output.partial):
                        if step.begins_file and read > done + 1:
                            self._next_file()
                        self._write(step)
                    self._progress.log_ns = step.message.log_ns
                    self._progress.read = read
                self._report(self._bag, self._progress)
        finally:
            batches.close()  # type: ignore[attr-defined]
        with writing_to(self._output.partial):
            self._infos.end_file(self._progress.log_ns)
            self._clouds.end_file(self._progress.log_ns)
        self._progress.losses = self._bag.all_losses()
        if out_of_order := self._bag.out_of_order():
            self._progress.note(
                f"recorded times jump back: {out_of_order} messages follow others of a later time; "
                "they are sorted by time"
            )
        self._infos.add_summary_notes()
        self._clouds.add_summary_notes()
        self._report(self._bag, self._progress)

    def _enter_topics(self) -> None:
        """Add all topics to the file, including those without messages."""
        copied = () if self._options.only_results else self._copied.values()
        for connection in (*copied, *self._results.values()):
            self._output.writer.add(connection)

    def _next_file(self) -> None:
        """Complete a file of OUT; the next one depends only on what a resumed run reads again."""
        self._infos.end_file(self._progress.log_ns)
        self._clouds.end_file(self._progress.log_ns)
        self._output.next_file(self._progress.to_json())
        self._next_label_ns = None
        self._enter_topics()

    def _batches(self, window: tuple[int | None, int | None], done: int) -> Iterator[list[_Step]]:
        """Yield messages in small batches with at most one image each, which is submitted unless already done."""
        seen = dict.fromkeys(self._progress.cameras, (0, -1))
        videos = VideoTopics(self._bag, self._cameras, *window)
        file = FileSplitter(self._options)
        batch: list[_Step] = []
        size = 0
        for read, (number, message) in enumerate(self._bag.messages(*window), 1):
            step = _Step(message, self._cameras.get(message.connection.stream))
            if not self._output.is_single_file and file.is_due(number, message):
                step.begins_file = True
                self._work.begin_file()
            if step.camera is not None:
                count, slot = seen[step.camera.topic]
                wanted, slot = self._wanted(count, slot, message.log_ns)
                seen[step.camera.topic] = count + 1, slot
                video = videos.frame(message)
                if wanted and read > done:
                    step.result = self._work.submit(message, video)
            batch.append(step)
            size += len(message.data)
            if step.result is not None or size > _BATCH_BYTES or len(batch) >= _BATCH_MESSAGES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _wanted(self, count: int, slot: int, log_ns: int) -> tuple[bool, int]:
        """Whether the image is segmented, and the time slot of the last segmented one."""
        if count % self._options.every:
            return False, slot
        if self._options.camera_rate_hz <= 0:
            return True, slot
        now = int(log_ns * self._options.camera_rate_hz // 1e9)
        return now != slot, now

    def _write(self, step: _Step) -> None:
        message, writer = step.message, self._output.writer
        self._write_label_info(message.log_ns)
        copied = self._copied.get(message.connection)
        if copied is not None and not self._options.only_results:
            writer.write(message._replace(connection=copied))
        self._infos.take(message)
        self._clouds.take(message)
        if step.camera is None or step.result is None:
            return
        state = self._progress.cameras[step.camera.topic]
        result = step.result.result()
        if result.problem:
            state.undecodable += 1
            if len(self._progress.undecodable_frames) < _MAX_NAMED_FRAMES:
                stamp = stamp_in(message.data) or message.log_ns
                self._progress.undecodable_frames.append((step.camera.topic, stamp, result.problem))
        else:
            for name, data in result.results.items():
                self._put(step.camera, name, message.log_ns, data)
            state.segmented += 1
            if CAMERA_INFO in self._options.outputs:
                self._infos.write_for(step.camera, message.log_ns, result)
            if result.drawing is not None:
                self._clouds.write_for(step.camera, message.log_ns, result.header, result.drawing)

    def _write_latched(self, start_ns: int) -> None:
        """Write the latched messages that a subscriber joining at the cut would receive."""
        with writing_to(self._output.partial):
            for message in latched(self._bag, start_ns):
                self._write(_Step(message._replace(log_ns=start_ns, publish_ns=start_ns)))

    def _put(self, camera: BagCamera, name: str, log_ns: int, data: bytes) -> None:
        connection = self._results[camera.topic, name]
        self._output.writer.write(Message(connection, log_ns, log_ns, 0, data))

    def _write_label_info(self, log_ns: int) -> None:
        due = self._next_label_ns
        if due is not None and due - LABEL_REPEAT_NS <= log_ns < due:
            return
        if LABEL_INFO in self._options.outputs:
            data = label_info(self._classes, log_ns, self._options.min_confidence)
            for camera in self._cameras.values():
                self._put(camera, LABEL_INFO, log_ns, data)
        self._next_label_ns = log_ns + LABEL_REPEAT_NS


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
    streams = {camera.connection.stream}
    videos = VideoTopics(bag, streams)
    for _, message in bag.messages(streams=streams):
        video = videos.frame(message)
        with contextlib.suppress(ValueError):  # the pool reports it
            _, image = image_from_cdr(message.data, message.connection.msgtype, video)
            seen = transform.to_network(image)
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
