# SPDX-License-Identifier: Apache-2.0
"""Reads an mcap file, in the order of time and in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment

from canet_ros.bags.bag import Message, Stream, Streams, message_bytes
from canet_ros.bags.mcap_contents import DAMAGE, HEAD, MESSAGE, Block, McapContents, records_in, stream_of

# Limit for chunks that overlap in time, which are in memory at once. A file that exceeds it is read in
# file order.
_MAX_OVERLAP_BYTES = 256 << 20


class McapFile:
    """One mcap file.

    Attributes:
        connections: its topics.
        counts: messages of each topic.
        start_ns, end_ns: first and last time; None without messages.
        out_of_order: messages read so far, of all streams, that follow one of a later time in the file.

    Raises:
        BagError: it cannot be opened, or is not an mcap file.
    """

    def __init__(self, path: Path) -> None:
        self._contents = McapContents(path)
        self._name = path.name
        self.losses = self._contents.losses
        self.connections = self._contents.connections
        self.metadata = self._contents.metadata
        self.blocks = self._contents.blocks
        self.out_of_order = 0
        self.start_ns = min((block.start_ns for block in self.blocks), default=None)
        self.end_ns = max((block.end_ns for block in self.blocks), default=None)
        self._in_time_order = _largest_overlap_bytes(self.blocks) <= _MAX_OVERLAP_BYTES
        self.counts = dict.fromkeys(self.connections, 0)
        for block in self.blocks:
            for channel, count in block.counts.items():
                if channel in self._contents.by_channel:
                    self.counts[self._contents.by_channel[channel]] += count

    def close(self) -> None:
        self._contents.file.close()

    def messages(self, start_ns: int, end_ns: int, streams: Streams = None) -> Iterator[Message]:
        """Messages with ``start_ns`` <= log time < ``end_ns`` of these streams by log time; None: of all."""
        blocks = [b for b in self._blocks_of(streams) if b.start_ns < end_ns and b.end_ns >= start_ns]
        if not self._in_time_order:
            self.losses.add(f"{self._name}: too many messages are out of order; reading in file order")
        for message in self._ordered(blocks, start_ns, end_ns, whole=streams is None):
            if streams is None or message.connection.stream in streams:
                yield message

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        """A stream's messages before ``before_ns``, newest first; reads only the parts of the file with them."""
        blocks = [block for block in self._blocks_of({stream}) if block.start_ns < before_ns]
        blocks.sort(key=lambda block: block.end_ns)
        found: list[Message] = []
        while blocks or found:
            found.sort(key=lambda message: message.log_ns)
            while found and not (blocks and blocks[-1].end_ns > found[-1].log_ns):
                yield found.pop()
            if blocks:
                inside = self._messages_in(blocks.pop(), 0, before_ns)
                found += [message for message in inside if message.connection.stream == stream]

    def attachments(self) -> Iterator[Attachment]:
        """Yield the readable attachments; damaged ones are added to ``losses``."""
        for offset, length in self._contents.attachments:
            try:
                self._contents.file.seek(offset)
                data = self._contents.file.read(length)
                if (data[:1], len(data)) != (bytes([Opcode.ATTACHMENT]), length):
                    raise McapError("it is not where the index has it")
                yield Attachment.read(stream_of(data[HEAD.size :]))
            except DAMAGE as error:
                self.losses.add(f"{self._name}: the attachment at byte {offset} is lost ({error})")

    def _blocks_of(self, streams: Streams) -> Sequence[Block]:
        """Blocks with messages of these streams; None: all."""
        if streams is None:
            return self.blocks
        channels = {number for number, other in self._contents.by_channel.items() if other.stream in streams}
        return [block for block in self.blocks if not channels.isdisjoint(block.counts)]

    def _ordered(self, blocks: Sequence[Block], start_ns: int, end_ns: int, whole: bool) -> Iterator[Message]:
        """By log time if bounded memory permits, else in file order. Counts ``out_of_order`` if ``whole``."""
        waiting: list[tuple[int, int, int, Message]] = []
        last = (-1, -1)
        if not self._in_time_order:
            for block in sorted(blocks, key=lambda block: block.offset):
                yield from self._messages_in(block, start_ns, end_ns)
            return
        blocks = sorted(blocks, key=lambda block: (block.start_ns, block.offset))
        for index in range(len(blocks) + 1):
            limit_ns = blocks[index].start_ns if index < len(blocks) else None
            while waiting and (limit_ns is None or waiting[0][0] < limit_ns):
                _, offset, number, message = heapq.heappop(waiting)
                self.out_of_order += whole and (offset, number) < last
                last = max(last, (offset, number))
                yield message
            if index < len(blocks):
                block = blocks[index]
                for number, message in enumerate(self._messages_in(block, start_ns, end_ns)):
                    heapq.heappush(waiting, (message.log_ns, block.offset, number, message))

    def _messages_in(self, block: Block, start_ns: int, end_ns: int) -> Iterator[Message]:
        records, problem = self._contents.records_of(block)
        found = unknown = damaged = 0
        for opcode, content in records_in(records):
            if opcode != Opcode.MESSAGE or len(content) < MESSAGE.size:
                continue
            found += 1
            channel, sequence, log_ns, publish_ns = MESSAGE.unpack_from(content)
            if not block.start_ns <= log_ns <= block.end_ns:
                self.losses.add(f"{self._name}: the times in the index differ from those of the messages")
            if not start_ns <= log_ns < end_ns:
                continue
            connection = self._contents.by_channel.get(channel)
            if connection is None:
                unknown += 1
                continue
            try:
                data = message_bytes(bytes(content[MESSAGE.size :]), connection)
            except (zstandard.ZstdError, MemoryError):
                damaged += 1
                continue
            yield Message(connection, log_ns, publish_ns, sequence, data)
        if unknown:
            sentence = "messages of a channel whose record is lost"
            self.losses.add(f"{self._name}: {sentence}", (block.offset, "unknown"), unknown)
        if damaged:
            sentence = "messages whose compression is damaged"
            self.losses.add(f"{self._name}: {sentence}", (block.offset, "damaged"), damaged)
        missing = sum(block.counts.values()) - found
        if problem or missing > 0:
            self.losses.add(
                f"{self._name}: the chunk at byte {block.offset} is damaged ({problem or 'too short'}); "
                f"{found} messages were read from it; mcap recover may recover more",
                block.offset,
                missing,
            )


def _largest_overlap_bytes(blocks: Sequence[Block]) -> int:
    """Peak memory in bytes of reading blocks by time, beyond the largest block."""
    changes = sorted(
        change
        for block in blocks
        for change in ((block.start_ns, 0, block.size), (block.end_ns, 1, -block.size))
    )
    largest = now = 0
    for _, _, change in changes:
        now += change
        largest = max(largest, now)
    return largest - max((block.size for block in blocks), default=0)
