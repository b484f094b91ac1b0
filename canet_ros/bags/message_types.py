# SPDX-License-Identifier: Apache-2.0
"""Message types without ROS: their definitions, and messages to CDR and back."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from canet_ros.bags.bag import Connection
from canet_ros.image_transports import VIDEO_TYPES
from canet_ros.model.class_table import ClassTable

LABEL_INFO = "vision_msgs/msg/LabelInfo"

# rosbags knows the types of the distributions' core alone. These are of vision_msgs 4 (ROS 2) and of video messages.
_OTHER_TYPES = {
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    LABEL_INFO: "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id\n"
    ),
    "vision_msgs/msg/Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
    VIDEO_TYPES["ffmpeg"]: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
    "uint8 flags\nbool is_bigendian\nuint8[] data\n",
    VIDEO_TYPES[
        "foxglove"
    ]: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
}
_MAX_SECONDS = 2**31 - 1
_BYTES = (Nodetype.SEQUENCE, ((Nodetype.BASE, ("uint8", 0)), 0))


class MessageError(ValueError):
    """Bytes that do not decode as a message of their type."""


@functools.lru_cache(maxsize=8)
def typestore(distribution: str = "humble") -> Any:
    """The types of a distribution (those of Humble where rosbags does not know it), and those of ``_OTHER_TYPES``."""
    known = {store.value: store for store in Stores}
    store = get_typestore(known.get(f"ros2_{distribution}", Stores.ROS2_HUMBLE))
    for name, definition in _OTHER_TYPES.items():
        store.register(get_types_from_msg(definition, name))
    return store


@functools.lru_cache(maxsize=1)
def _types_without_strings() -> Any:
    """The same types with bytes instead of strings, which have the same CDR form."""
    store = get_typestore(Stores.EMPTY)
    store.register(
        {
            name: (constants, [(field, _BYTES if _is_string(kind) else kind) for field, kind in fields])
            for name, (constants, fields) in typestore().fielddefs.items()
        }
    )
    return store


def _is_string(kind: Any) -> bool:
    return bool(kind[0] == Nodetype.BASE and kind[1][0] == "string")


def _set_texts(message: Any, msgtype: str) -> None:
    """Turn the bytes of strings to text as rclpy does: up to the first zero, and bytes that are not UTF-8 replaced."""
    for field, kind in typestore().fielddefs[msgtype][1]:
        value = getattr(message, field)
        if _is_string(kind):
            setattr(message, field, bytes(value).partition(b"\0")[0].decode(errors="replace"))
        elif kind[0] == Nodetype.NAME:
            _set_texts(value, kind[1])
        elif kind[1][0][0] == Nodetype.NAME:
            for item in value:
                _set_texts(item, kind[1][0][1])


def from_cdr(data: bytes, msgtype: str) -> Any:
    """The message in CDR bytes, of a type that ``typestore`` knows; its strings as rclpy takes them.

    Raises:
        MessageError: the bytes do not decode.
    """
    try:
        message = _types_without_strings().deserialize_cdr(data, msgtype)
        _set_texts(message, msgtype)
        return message
    except Exception as error:  # rosbags passes on exceptions of numpy and struct for damaged data
        raise MessageError(
            f"{len(data)} bytes are not a {msgtype}: {error or type(error).__name__}"
        ) from error


def to_cdr(message: Any, msgtype: str) -> bytes:
    return bytes(typestore().serialize_cdr(message, msgtype))


def new(msgtype: str, **fields: Any) -> Any:
    """A message with these fields, all that its type has."""
    return typestore().types[msgtype](**fields)


def header(stamp_ns: int, frame_id: str = "") -> Any:
    """A ``std_msgs/Header``; times after 2038 are clipped to the range of its 32-bit seconds."""
    sec = min(stamp_ns // 10**9, _MAX_SECONDS)
    stamp = new("builtin_interfaces/msg/Time", sec=sec, nanosec=stamp_ns % 10**9)
    return new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def header_stamp_ns(head: Any) -> int:
    """The stamp of a ``std_msgs/Header``; 0: not set by the driver."""
    return int(head.stamp.sec) * 10**9 + int(head.stamp.nanosec)


def stamp_in(data: bytes) -> int:
    """The stamp at the beginning of a CDR message whose rest may be damaged; 0: none."""
    if len(data) < 12 or data[:2] not in (b"\0\0", b"\0\1"):
        return 0
    order = "little" if data[1] else "big"
    return int.from_bytes(data[4:8], order) * 10**9 + int.from_bytes(data[8:12], order)  # type: ignore[arg-type]


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
    """The connection with its type's definition added, if missing and known for the distribution."""
    store = typestore(distribution)
    if plain.definition_encoding or plain.encoding != "cdr" or plain.msgtype not in store.types:
        return plain
    definition, _ = store.generate_msgdef(plain.msgtype, ros_version=2)
    type_hash = plain.type_hash or store.hash_rihs01(plain.msgtype)
    return replace(plain, definition_encoding="ros2msg", definition=definition.encode(), type_hash=type_hash)
