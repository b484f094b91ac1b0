# SPDX-License-Identifier: Apache-2.0
"""Bags of synthetic streets, written by rosbags and not by the package under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rosbags")  # brings lz4 and zstandard

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from canet_ros.simulation import StreetDrive

# The options and the type of the fixture ``segment``.
EXACT = ("--engine", "onnxruntime", "--precision", "fp32", "--device", "cpu", "--resolution", "")
Segment = Callable[..., int]

START_NS = 1_700_000_000_123_456_789
PERIOD_NS = 100_000_000
FOREVER = QosTime(9223372036, 854775807)
STORE = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def qos(reliability: str = "RELIABLE", durability: str = "VOLATILE", depth: int = 10) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability[reliability],
        QosDurability[durability],
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )


@dataclass
class Topic:
    name: str
    msgtype: str
    qos: Qos


@dataclass
class Recorded:
    topic: str
    msgtype: str
    log_ns: int
    data: bytes


def header(stamp_ns: int, frame_id: str = "camera") -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def image(pixels: np.ndarray, stamp_ns: int, encoding: str = "bgr8", frame_id: str = "camera") -> bytes:
    height, width = pixels.shape[:2]
    step = pixels.nbytes // height
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    message = STORE.types[IMAGE](header(stamp_ns, frame_id), height, width, encoding, 0, step, data)
    return bytes(STORE.serialize_cdr(message, IMAGE))


def compressed(pixels: np.ndarray, stamp_ns: int, suffix: str = "jpg", text: str = "") -> bytes:
    data = cv2.imencode(f".{suffix}", pixels)[1].reshape(-1)
    form = text or ("bgr8; jpeg compressed bgr8" if suffix == "jpg" else "bgr8; png compressed bgr8")
    return bytes(STORE.serialize_cdr(STORE.types[COMPRESSED](header(stamp_ns), form, data), COMPRESSED))


def camera_info(width: int, height: int, stamp_ns: int) -> bytes:
    name = "sensor_msgs/msg/CameraInfo"
    k = np.array([100.0, 0, width / 2, 0, 100.0, height / 2, 0, 0, 1])
    p = np.insert(k, [3, 6, 9], 0.0)
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    message = STORE.types[name](
        header(stamp_ns), height, width, "plumb_bob", np.zeros(5), k, np.eye(3).reshape(-1), p, 0, 0, roi
    )
    return bytes(STORE.serialize_cdr(message, name))


def text(value: str) -> bytes:
    return bytes(STORE.serialize_cdr(STORE.types["std_msgs/msg/String"](value), "std_msgs/msg/String"))


TOPICS = {
    "/front/image_raw": Topic("/front/image_raw", IMAGE, qos("BEST_EFFORT")),
    "/rear/image_raw/compressed": Topic(
        "/rear/image_raw/compressed", COMPRESSED, qos("BEST_EFFORT", depth=5)
    ),
    "/front/camera_info": Topic("/front/camera_info", "sensor_msgs/msg/CameraInfo", qos()),
    "/chatter": Topic("/chatter", "std_msgs/msg/String", qos()),
    "/tf_static": Topic("/tf_static", "std_msgs/msg/String", qos("RELIABLE", "TRANSIENT_LOCAL", 1)),
}


def images(count: int, width: int = 160, height: int = 120, seed: int = 5) -> list[np.ndarray]:
    drive = StreetDrive(seed=seed, width=width, height=height)
    return [drive.frame(index).image for index in range(count)]


def drive_messages(frames: Sequence[np.ndarray]) -> list[Recorded]:
    """Two cameras, a camera_info behind its image, a chatterbox between them, and something latched."""
    messages = [Recorded("/tf_static", "std_msgs/msg/String", START_NS, text("latched"))]
    for index, frame in enumerate(frames):
        time = START_NS + index * PERIOD_NS
        height, width = frame.shape[:2]
        messages += [
            Recorded("/front/image_raw", IMAGE, time, image(frame, time)),
            Recorded(
                "/front/camera_info",
                "sensor_msgs/msg/CameraInfo",
                time + 1000,
                camera_info(width, height, time),
            ),
            Recorded("/chatter", "std_msgs/msg/String", time + 2000, text(f"message {index}")),
            Recorded("/rear/image_raw/compressed", COMPRESSED, time + 50_000_000, compressed(frame, time)),
        ]
    return messages


def write_bag(
    path: Path,
    messages: Sequence[Recorded],
    storage: str = "mcap",
    compression: str = "none",
    topics: Sequence[Topic] = tuple(TOPICS.values()),
    version: int = 8,
) -> Path:
    """A bag folder at ``path``, by rosbags; ``compression``: none, file, message or storage."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(path, version=version, storage_plugin=plugin)
    if compression != "none":
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections = {
            (topic.name, topic.msgtype): writer.add_connection(
                topic.name, topic.msgtype, typestore=STORE, offered_qos_profiles=[topic.qos]
            )
            for topic in topics
        }
        for message in messages:
            writer.write(connections[message.topic, message.msgtype], message.log_ns, message.data)
    return path


def bag_of(
    path: Path,
    messages: Sequence[Recorded],
    storage: str = "mcap",
    *others: Topic,
    latched: Sequence[str] = (),
) -> Path:
    """A bag with the topics of these messages and others, in the order of time."""
    kinds = dict.fromkeys((m.topic, m.msgtype) for m in messages)
    durability = dict.fromkeys(latched, "TRANSIENT_LOCAL")
    topics = {k: Topic(*k, qos(durability=durability.get(k[0], "VOLATILE"))) for k in kinds}
    ordered = sorted(messages, key=lambda message: message.log_ns)
    return write_bag(path, ordered, storage, topics=(*topics.values(), *others))


def joined(path: Path, *bags: Path) -> Path:
    """A bag of the files of these, in this order. Its metadata.yaml is that of the first, but for files and count."""
    names, count = [], 0
    for number, bag in enumerate(bags):
        file = storage_file(bag)
        names.append(f"{path.name}_{number}{file.suffix}")
        path.mkdir(exist_ok=True)
        file.rename(path / names[-1])
        count += metadata_of(bag)["message_count"]
    (bags[0] / "metadata.yaml").rename(path / "metadata.yaml")
    return change_metadata(path, relative_file_paths=names, message_count=count)


def metadata_of(bag: Path) -> dict[str, Any]:
    return yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


def change_metadata(bag: Path, **fields: object) -> Path:
    information = {**metadata_of(bag), **fields}
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}))
    return bag


def storage_file(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.name != "metadata.yaml")


def read_bag(path: Path) -> list[Recorded]:
    """Everything in a bag, by rosbags."""
    with Reader(path) as reader:
        return [
            Recorded(connection.topic, connection.msgtype, time, bytes(data))
            for connection, time, data in reader.messages()
        ]


def results_of(messages: Sequence[Recorded], topic: str) -> Iterator[Any]:
    """The messages of a topic, deserialised."""
    from canet_ros.bags.message_types import typestore

    for message in messages:
        if message.topic == topic:
            yield typestore().deserialize_cdr(message.data, message.msgtype)


def carried(messages: Sequence[Recorded]) -> list[Recorded]:
    return [message for message in messages if "/segmentation/" not in message.topic]


def stamp(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little") * 10**9 + int.from_bytes(data[8:12], "little")


def pixels(data: bytes) -> np.ndarray:
    """The image in a CompressedImage."""
    return cv2.imdecode(np.asarray(STORE.deserialize_cdr(data, COMPRESSED).data), cv2.IMREAD_UNCHANGED)


def records(mcap: bytes) -> Iterator[tuple[int, bytes]]:
    """Operation code and content of each record of an mcap file, chunks as a whole."""
    at = 8
    while at < len(mcap) - 8:
        length = int.from_bytes(mcap[at + 1 : at + 9], "little")
        yield mcap[at], mcap[at + 9 : at + 9 + length]
        at += 9 + length
