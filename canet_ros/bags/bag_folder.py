# SPDX-License-Identifier: Apache-2.0
"""Writes metadata.yaml in version 8, which every rosbag2 from Humble on reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canet_ros.bags.bag import Connection
from canet_ros.bags.mcap_writer import McapWriter
from canet_ros.bags.metadata import METADATA_FILE

VERSION = 8


@dataclass(frozen=True)
class WrittenFile:
    """A finished file of a bag; times in ns, None without messages."""

    name: str
    start_ns: int | None
    end_ns: int | None
    counts: Mapping[Connection, int]

    @classmethod
    def of(cls, name: str, file: McapWriter) -> WrittenFile:
        return cls(name, file.start_ns, file.end_ns, dict(file.counts))


def bag_information(
    files: Sequence[WrittenFile], custom: Mapping[str, str], distribution: str
) -> dict[str, Any]:
    """Contents of metadata.yaml, and of the metadata record that rosbag2 reads from a single mcap file."""
    counts: dict[Connection, int] = {}
    for file in files:
        for connection, count in file.counts.items():
            counts[connection] = counts.get(connection, 0) + count
    starts = [file.start_ns for file in files if file.start_ns is not None]
    ends = [file.end_ns for file in files if file.end_ns is not None]
    return {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": max(ends, default=0) - min(starts, default=0)},
        "starting_time": {"nanoseconds_since_epoch": min(starts, default=0)},
        "message_count": sum(counts.values()),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": connection.topic,
                    "type": connection.msgtype,
                    "serialization_format": connection.encoding,
                    "offered_qos_profiles": connection.qos,
                    "type_description_hash": connection.type_hash,
                },
                "message_count": count,
            }
            for connection, count in counts.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.name for file in files],
        "files": [
            {
                "path": file.name,
                "starting_time": {"nanoseconds_since_epoch": file.start_ns or 0},
                "duration": {"nanoseconds": (file.end_ns or 0) - (file.start_ns or 0)},
                "message_count": sum(file.counts.values()),
            }
            for file in files
        ],
        "custom_data": dict(custom),
        "ros_distro": distribution or "unknown",
    }


def metadata_records(
    information: Mapping[str, Any], custom: Mapping[str, str]
) -> list[tuple[str, Mapping[str, str]]]:
    """Metadata records of an mcap file: ``rosbag2`` and ``canet_ros``."""
    return [("rosbag2", {"serialized_metadata": _yaml(information).strip()}), ("canet_ros", dict(custom))]


def write_metadata(folder: Path, information: Mapping[str, Any]) -> None:
    """Write metadata.yaml atomically."""
    temporary = folder / f"{METADATA_FILE}.new"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(_yaml({"rosbag2_bagfile_information": information}))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / METADATA_FILE)


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=2**16))
