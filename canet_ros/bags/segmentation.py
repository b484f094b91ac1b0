# SPDX-License-Identifier: Apache-2.0
"""Segments a bag: the same bag comes out, with the topics that the node would have published.

Reading, decoding, engine, encoding and writing overlap; what comes out does not depend on how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

import canet_ros
from canet_ros.bags.ahead import ahead
from canet_ros.bags.bag import BagError, Connection, Message
from canet_ros.bags.camera_infos import CameraInfos
from canet_ros.bags.cameras import BagCamera, choose_cameras
from canet_ros.bags.latched import latched
from canet_ros.bags.message_types import label_info
from canet_ros.bags.options import Options
from canet_ros.bags.output import Output, writing_to
from canet_ros.bags.picture_work import Picture, ThreadedWork
from canet_ros.bags.progress import CameraState, Progress
from canet_ros.bags.reading import Bag, defined, open_bag
from canet_ros.bags.results import result_connection
from canet_ros.formats import parse_groups
from canet_ros.inference.class_groups import unknown_classes_problem
from canet_ros.inference.palette import recolored
from canet_ros.inference.view import View, read_views
from canet_ros.messages.pictures import CAMERA_INFO, LABEL_INFO

LABEL_REPEAT_NS = 10 * 10**9
_BATCH_BYTES, _BATCH_MESSAGES = 1 << 20, 256
_NAMED_PICTURES = 200


@dataclass
class _Step:
    """A message of the source and what becomes of it."""

    message: Message
    camera: BagCamera | None = None
    begins_file: bool = False
    picture: Future[Picture] | None = None


class _OutFile:
    """How much of IN is in the file of OUT that is being filled; known before anything is written."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._sources: set[int] = set()
        self._start_ns: int | None = None
        self._bytes = 0

    def is_due(self, number: int, message: Message) -> bool:
        """Whether a new file begins with this message, of IN's file of this number."""
        start_ns, new_source = self._start_ns, number not in self._sources
        self._sources.add(number)
        due = start_ns is not None and (
            new_source
            or 0 < self._options.split_bytes <= self._bytes
            or 0 < self._options.split_ns <= message.log_ns - start_ns
        )
        if start_ns is None or due:
            self._start_ns, self._bytes = message.log_ns, 0
        self._bytes += len(message.data)
        return due


def segment_bag(
    source: Path,
    out: Path,
    work: ThreadedWork,
    options: Options,
    made_by: Mapping[str, str],
    resume: bool = False,
    force: bool = False,
    report: Callable[[Bag, Progress], None] = lambda bag, progress: None,
) -> Progress:
    """Write ``out``: the bag ``source`` with the results beside each camera.

    Args:
        source: folder or file.
        out: folder to be made, or a file if it ends in .mcap.
        work: where its pictures are segmented, with the same options.
        made_by: what the bag's metadata says of the model.
        report: called after each batch of messages.

    Raises:
        BagError: the bag cannot be read or written, or holds nothing to segment; ``out`` is then not made.
    """
    _check_paths(source, out)
    problem = unknown_classes_problem(parse_groups(options.groups), work.classes.names)
    if problem:
        raise BagError(problem)
    identity = {"input": _files_of(source), "options": asdict(options), "model": dict(made_by)}
    output = Output(out, f"canet_ros {canet_ros.__version__}", identity, resume, force)
    try:
        progress = Progress() if output.state is None else Progress.from_json(output.state)
        with open_bag(source, output.work) as bag:
            if bag.end_ns == 0 and all(file.start_ns is None for file in bag.files):
                raise BagError(f"{source} holds no messages{_because(bag)}")
            for sentence in bag.notes:
                progress.note(sentence)
            window = _window(source, bag, options)
            cameras = choose_cameras(bag, options.topics, progress.note, window)
            work.views = _views(cameras, options)
            custom = {**bag.custom, **{f"canet_ros.{key}": value for key, value in made_by.items()}}
            with writing_to(output.partial):
                output.begin(custom, bag.distribution)
            run = _Run(bag, cameras, work, options, output, progress, report)
            run.go(window)
            if not progress.segmented:
                output.discard()
                raise BagError(_nothing(source, progress, cameras))
            output.finish(None if options.only_results else bag)
            progress.losses = bag.all_losses()
    except BaseException:
        output.give_up()
        raise
    return progress


class _Run:
    """One bag on its way through the stages."""

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[BagCamera],
        work: ThreadedWork,
        options: Options,
        output: Output,
        progress: Progress,
        report: Callable[[Bag, Progress], None],
    ) -> None:
        self._bag = bag
        self._cameras = {camera.connection.stream: camera for camera in cameras}
        with_infos = cameras if CAMERA_INFO in options.outputs else ()
        self._infos = CameraInfos(bag, with_infos, progress, self._put)
        self._work = work
        self._options = options
        self._output = output
        self._progress = progress
        self._report = report
        self._classes = recolored(work.classes, options.palette)
        self._results = {
            (camera.topic, name): result_connection(camera.results, name, bag.distribution)
            for camera in cameras
            for name in options.outputs
        }
        self._replaced = {connection.topic for connection in self._results.values()}
        self._defined: dict[Connection, Connection] = {}
        for camera in cameras:
            progress.cameras.setdefault(camera.topic, CameraState())

    def go(self, window: tuple[int | None, int | None]) -> None:
        done = self._progress.read
        self._enter_topics()
        self._infos.find_first(window[0])
        if window[0] is not None and not done:
            self._write_latched(window[0])
        batches = ahead(self._batches(window, done), self._work.ahead, "reading")
        read = 0
        try:
            for batch in batches:
                for step in batch:
                    read += 1
                    if read <= done:
                        self._infos.take(step.message)
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
        self._progress.losses = self._bag.all_losses()
        self._note_the_whole()
        self._report(self._bag, self._progress)

    def _enter_topics(self) -> None:
        """In each file all topics, also those without messages."""
        for connection in self._bag.connections:
            if connection.topic in self._replaced:
                self._progress.note(f"{connection.topic} was there before: it is made anew")
            elif not self._options.only_results:
                self._output.writer.add(self._carried(connection))
        for connection in self._results.values():
            self._output.writer.add(connection)

    def _next_file(self) -> None:
        """Complete a file of OUT; the next one depends on nothing but what is read again when a run goes on."""
        self._infos.end_file(self._progress.log_ns)
        self._output.next_file(self._progress.to_json())
        self._progress.next_label_ns = None
        self._enter_topics()

    def _batches(self, window: tuple[int | None, int | None], done: int) -> Iterator[list[_Step]]:
        """Messages in small batches, at most one picture in each, which is in work if it is not among those done."""
        seen = dict.fromkeys(self._progress.cameras, (0, -1))
        file = _OutFile(self._options)
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
                if wanted and read > done:
                    step.picture = self._work.submit(message)
            batch.append(step)
            size += len(message.data)
            if step.picture is not None or size > _BATCH_BYTES or len(batch) >= _BATCH_MESSAGES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _wanted(self, count: int, slot: int, log_ns: int) -> tuple[bool, int]:
        """Whether the picture is segmented, and the slot of time that the last such one takes up."""
        if count % self._options.every:
            return False, slot
        if self._options.camera_rate_hz <= 0:
            return True, slot
        now = int(log_ns * self._options.camera_rate_hz // 1e9)
        return now != slot, now

    def _write(self, step: _Step) -> None:
        message, writer = step.message, self._output.writer
        self._write_label_info(message.log_ns)
        if not self._options.only_results and message.connection.topic not in self._replaced:
            writer.write(message._replace(connection=self._carried(message.connection)))
        self._infos.take(message)
        if step.camera is None or step.picture is None:
            return
        state = self._progress.cameras[step.camera.topic]
        picture = step.picture.result()
        if picture.problem:
            self._count_undecodable(step, state, picture.problem)
        else:
            for name, data in picture.results.items():
                self._put(step.camera, name, message.log_ns, data)
            state.segmented += 1
            stamp = picture.stamp_ns
            state.jumps_back += 0 < stamp < state.last_stamp_ns
            state.last_stamp_ns = stamp
            if CAMERA_INFO in self._options.outputs:
                self._infos.write_late(step.camera, message.log_ns, picture)

    def _write_latched(self, start_ns: int) -> None:
        """What latched topics last said before the cut, as a subscriber that starts there would get it."""
        with writing_to(self._output.partial):
            for message in latched(self._bag, start_ns):
                self._write(_Step(message._replace(log_ns=start_ns, publish_ns=start_ns)))

    def _put(self, camera: BagCamera, name: str, log_ns: int, data: bytes) -> None:
        connection = self._results[camera.topic, name]
        self._output.writer.write(Message(connection, log_ns, log_ns, 0, data))

    def _write_label_info(self, log_ns: int) -> None:
        due = self._progress.next_label_ns
        if LABEL_INFO not in self._options.outputs or (
            due is not None and due - LABEL_REPEAT_NS <= log_ns < due
        ):
            return
        for camera in self._cameras.values():
            self._put(
                camera, LABEL_INFO, log_ns, label_info(self._classes, log_ns, self._options.min_confidence)
            )
        self._progress.next_label_ns = log_ns + LABEL_REPEAT_NS

    def _count_undecodable(self, step: _Step, state: CameraState, problem: str) -> None:
        assert step.camera is not None
        state.undecodable += 1
        if len(self._progress.bad_pictures) < _NAMED_PICTURES:
            stamp = _stamp_in(step.message.data) or step.message.log_ns
            self._progress.bad_pictures.append((step.camera.topic, stamp, problem))

    def _carried(self, connection: Connection) -> Connection:
        if connection not in self._defined:
            self._defined[connection] = defined(connection, self._bag)
        return self._defined[connection]

    def _note_the_whole(self) -> None:
        """What can only be said when everything has been read."""
        progress = self._progress
        if out_of_order := self._bag.out_of_order():
            progress.note(
                f"recorded times jump back: {out_of_order} messages were written after others of a later time; "
                "they are put in the order of time"
            )
        for topic, state in progress.cameras.items():
            if state.jumps_back:
                progress.note(f"{topic}: the stamps of its pictures jump back {state.jumps_back} times")
        self._infos.note_the_whole()


def _views(cameras: Sequence[BagCamera], options: Options) -> dict[str, View]:
    """How each camera is looked at, by topic."""
    lists = (options.ignore_masks, options.regions, options.rotations)
    if any(lists) and len(cameras) > 1 and not options.topics:
        raise BagError(
            f"{len(cameras)} cameras: --regions, --rotations and --ignore-masks have an entry for each of --topics: "
            f"give --topics {' '.join(camera.topic for camera in cameras)}"
        )
    try:
        views = read_views(len(cameras), *lists)
    except ValueError as error:
        raise BagError(str(error)) from error
    return {camera.topic: view for camera, view in zip(cameras, views)}


def _check_paths(source: Path, out: Path) -> None:
    if not source.exists():
        raise BagError(f"{source} does not exist")
    whole, target = source.resolve(), out.resolve()
    if not out.name or out.name == "..":
        raise BagError(f"{out} is a folder that is there already: give the name of a new one")
    if target == whole:
        raise BagError(f"{out} is the input itself: give another name")
    if whole.is_dir() and target.is_relative_to(whole):
        raise BagError(f"{out} lies in the input {source}: give a name outside of it")
    if whole.is_relative_to(target):
        raise BagError(f"the input {source} lies in {out}: give another name")
    if out.suffix in (".db3", ".bag", ".zstd"):
        raise BagError(f"{out}: bags are written as mcap; give a folder, or a name that ends in .mcap")
    with writing_to(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)


def _files_of(source: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of change of what the input is made of."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return [
        (file.name, status.st_size, status.st_mtime_ns)
        for file in files
        if file.is_file() and (status := file.stat())
    ]


def _window(source: Path, bag: Bag, options: Options) -> tuple[int | None, int | None]:
    start_ns, end_ns = options.start_ns, options.end_ns
    if start_ns is not None and start_ns < _ABSOLUTE_FROM_NS:
        start_ns += bag.start_ns
    if end_ns is not None and end_ns < _ABSOLUTE_FROM_NS:
        end_ns += bag.start_ns
    length_s = (bag.end_ns - bag.start_ns) / 1e9
    lasts = f"{source} lasts {length_s:.3f} s, from {bag.start_ns / 1e9:.3f} on"
    if start_ns is not None and start_ns > bag.end_ns:
        raise BagError(f"--start lies behind the end: {lasts}")
    if end_ns is not None and end_ns <= bag.start_ns:
        raise BagError(f"--end lies before the beginning: {lasts}")
    if start_ns is not None and end_ns is not None and end_ns <= start_ns:
        raise BagError("--end must lie behind --start")
    return start_ns, end_ns


# Three years: times below are counted from the beginning of the bag, times above from 1970.
_ABSOLUTE_FROM_NS = 10**8 * 10**9


def _because(bag: Bag) -> str:
    sentences = list(bag.all_losses().sentences)
    return f": {'; '.join(sentences)}" if sentences else ""


def _nothing(source: Path, progress: Progress, cameras: Sequence[BagCamera]) -> str:
    topics = ", ".join(camera.topic for camera in cameras)
    if progress.undecodable:
        _, _, problem = progress.bad_pictures[0]
        return f"none of the {progress.undecodable} pictures on {topics} could be decoded: {problem}"
    return f"{source} holds no pictures on {topics} in this time"


def _stamp_in(data: bytes) -> int:
    """The stamp at the beginning of a CDR message, which is there when the rest is not; 0: none."""
    if len(data) < 12 or data[:2] not in (b"\0\0", b"\0\1"):
        return 0
    order = "little" if data[1] else "big"
    return int.from_bytes(data[4:8], order) * 10**9 + int.from_bytes(data[8:12], order)  # type: ignore[arg-type]
