# SPDX-License-Identifier: Apache-2.0
"""Writes metadata.yaml in version 8, which every rosbag2 from Humble on reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from canet_ros.bags.bag import Connection
from canet_ros.bags.metadata import METADATA_FILE
from canet_ros.files import write_text

VERSION = 8


@dataclass
class WrittenFile:
    """A file of a bag; times in ns, None without messages."""

    name: str
    start_ns: int | None = None
    end_ns: int | None = None
    counts: dict[Connection, int] = field(default_factory=dict)


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


def write_metadata(
    folder: Path, files: Sequence[WrittenFile], custom: Mapping[str, str], distribution: str
) -> None:
    """Write metadata.yaml atomically."""
    information = bag_information(files, custom, distribution)
    write_text(folder / METADATA_FILE, as_yaml({"rosbag2_bagfile_information": information}))


def as_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=2**16))
