# SPDX-License-Identifier: Apache-2.0
"""Message types without ROS: their definitions, and messages to CDR and back."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from canet_ros.bags.bag import Connection
from canet_ros.inference.class_table import ClassTable

LABEL_INFO = "vision_msgs/msg/LabelInfo"

# vision_msgs 4 (ROS 2); rosbags knows the types of the distributions' core alone.
_VISION_MSGS = {
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    LABEL_INFO: "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
}
_MOST_SECONDS = 2**31 - 1


class MessageError(ValueError):
    """Bytes that are no message of their type."""


@functools.lru_cache(maxsize=8)
def typestore(distribution: str = "humble") -> Any:
    """The types of a distribution (those of Humble where rosbags does not know it), and vision_msgs'."""
    known = {store.value: store for store in Stores}
    store = get_typestore(known.get(f"ros2_{distribution}", Stores.ROS2_HUMBLE))
    for name, definition in _VISION_MSGS.items():
        store.register(get_types_from_msg(definition, name))
    return store


def decoded(data: bytes, msgtype: str) -> Any:
    """The message in CDR bytes, of a type that ``typestore`` knows.

    Raises:
        MessageError: the bytes are no such message.
    """
    try:
        return typestore().deserialize_cdr(data, msgtype)
    except Exception as error:  # rosbags lets through whatever numpy and struct throw at bytes that lie
        try:
            return _CdrReader(data).message(msgtype)
        except Exception:
            reason = f"{error or type(error).__name__}"
            raise MessageError(f"{len(data)} bytes are no {msgtype}: {reason}") from error


class _CdrReader:
    """Reads what rosbags refuses and rclpy takes: strings that are not UTF-8, have no terminator or no byte at all."""

    def __init__(self, data: bytes) -> None:
        if data[:2] not in (b"\0\0", b"\0\1"):
            raise ValueError("no CDR")
        self._little = bool(data[1])
        self._data = memoryview(data)[4:]
        self._at = 0

    def message(self, msgtype: str) -> Any:
        store = typestore()
        fields = store.fielddefs[msgtype][1]
        return store.types[msgtype](*(self._field(kind, details) for _, (kind, details) in fields))

    def _field(self, kind: Nodetype, details: Any) -> Any:
        if kind == Nodetype.NAME:
            return self.message(details)
        if kind == Nodetype.BASE:
            return self._string() if details[0] == "string" else self._numbers(details[0], 1)[0].item()
        (inner_kind, inner), length = details
        count = length if kind == Nodetype.ARRAY else int(self._numbers("uint32", 1)[0])
        if inner_kind == Nodetype.BASE and inner[0] != "string":
            return self._numbers(inner[0], count)
        if count > len(self._data) - self._at:
            raise ValueError("a sequence ends behind the message")
        return [self._field(inner_kind, inner) for _ in range(count)]

    def _numbers(self, name: str, count: int) -> NDArray[Any]:
        kind = np.dtype({"byte": "uint8", "char": "uint8"}.get(name, name))
        if count:
            self._at = -(-self._at // kind.itemsize) * kind.itemsize
        found = np.frombuffer(self._data, kind.newbyteorder("<" if self._little else ">"), count, self._at)
        self._at += found.nbytes
        return found.astype(kind, copy=False)

    def _string(self) -> str:
        length = int(self._numbers("uint32", 1)[0])
        if length > len(self._data) - self._at:
            raise ValueError("a string ends behind the message")
        text = bytes(self._data[self._at : self._at + length])
        self._at += length
        return text.partition(b"\0")[0].decode(errors="replace")


def to_cdr(message: Any, msgtype: str) -> bytes:
    return bytes(typestore().serialize_cdr(message, msgtype))


def new(msgtype: str, **fields: Any) -> Any:
    """A message with these fields, all that its type has."""
    return typestore().types[msgtype](**fields)


def header(stamp_ns: int, frame_id: str = "") -> Any:
    """A ``std_msgs/Header``; a time after 2038, which its 32 bits of seconds cannot hold, becomes the last they can."""
    sec = min(stamp_ns // 10**9, _MOST_SECONDS)
    stamp = new("builtin_interfaces/msg/Time", sec=sec, nanosec=stamp_ns % 10**9)
    return new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def stamp_ns(message: Any) -> int:
    """The stamp of a message's header; 0 is what drivers send that do not stamp."""
    return stamp_of(message.header)


def stamp_of(head: Any) -> int:
    return int(head.stamp.sec) * 10**9 + int(head.stamp.nanosec)


def label_info(classes: ClassTable, time_ns: int, threshold: float = 0.0) -> bytes:
    """A ``vision_msgs/LabelInfo`` of the classes, as the node publishes it, in CDR."""
    entries = [
        new("vision_msgs/msg/VisionClass", class_id=index, class_name=name)
        for index, name in enumerate(classes.names)
    ]
    return to_cdr(new(LABEL_INFO, header=header(time_ns), class_map=entries, threshold=threshold), LABEL_INFO)


def connection(topic: str, msgtype: str, qos: str, distribution: str = "humble") -> Connection:
    """A topic of ours, with its type's definition."""
    return with_definition(Connection(topic, msgtype, qos=qos), distribution)


def with_definition(plain: Connection, distribution: str) -> Connection:
    """The same with its type's definition, where it has none and the distribution's is known."""
    store = typestore(distribution)
    if plain.definition_encoding or plain.encoding != "cdr" or plain.msgtype not in store.types:
        return plain
    definition, _ = store.generate_msgdef(plain.msgtype, ros_version=2)
    type_hash = plain.type_hash or store.hash_rihs01(plain.msgtype)
    return replace(plain, definition_encoding="ros2msg", definition=definition.encode(), type_hash=type_hash)
