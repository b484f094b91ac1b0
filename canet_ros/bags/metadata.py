# SPDX-License-Identifier: Apache-2.0
"""Reads metadata.yaml, finds the files of a bag, also without one, and writes it for every rosbag2 from Humble on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from canet_ros.bags.bag import BagError, Connection, Losses
from canet_ros.files import write_text

METADATA_FILE = "metadata.yaml"
TYPE_HASHES = "type_hashes"
_FILE = re.compile(r"(.+\.(?:mcap|db3))(?:\.zstd?)?")
_VERSION = 8


def read_metadata(path: Path, losses: Losses) -> dict[str, Any]:
    """Contents of metadata.yaml, in the folder or beside the file, with ``TYPE_HASHES``; empty if unreadable."""
    file = (path if path.is_dir() else path.parent) / METADATA_FILE
    problem = ""
    try:
        loaded = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        metadata: dict[str, Any] = loaded["rosbag2_bagfile_information"]
        names = {PurePath(str(name)).name for name in metadata["relative_file_paths"]}
        if not isinstance(metadata.get("custom_data") or {}, dict):
            raise TypeError("custom_data is not a dict")
        topics = [topic["topic_metadata"] for topic in metadata.get("topics_with_message_count") or ()]
        hashes = {str(topic["type"]): str(topic.get("type_description_hash") or "") for topic in topics}
        if path.is_dir() or path.name in names:
            return {**metadata, TYPE_HASHES: hashes}
    except FileNotFoundError:
        problem = "is missing: the recording did not end properly"
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        problem = f"cannot be read ({' '.join(str(error).split())}): using all files in order of their names"
    if path.is_dir():
        losses.add(f"{METADATA_FILE} {problem}")
    return {}


def file_paths(path: Path, metadata: dict[str, Any], losses: Losses) -> list[Path]:
    """The files of a bag; missing ones are added to ``losses``."""
    if not path.is_dir():
        return [path]
    found: dict[str, Path] = {}  # by name without compression
    for file in sorted(path.iterdir()):
        if (match := _FILE.fullmatch(file.name)) and file.is_file():
            # rosbag2 deletes a file once it is completely compressed, so one that is there is whole.
            found.setdefault(match[1], file)
    if not found:
        raise BagError(f"{path} is not a rosbag2: it contains no .mcap or .db3 files")
    # Versions before 4 name files from the folder above.
    paths = [PurePath(str(name)) for name in metadata.get("relative_file_paths", ())]
    names = dict.fromkeys(name.stem if name.suffix in (".zstd", ".zst") else name.name for name in paths)
    for name in names.keys() - found.keys():
        losses.add(f"{name}, which {METADATA_FILE} names, is missing")
    there = [name for name in names if name in found]
    if not there:
        return list(found.values())
    # Recorders write metadata.yaml with each split that is complete; one that is killed leaves a further file.
    splits = re.compile(re.sub(r"_\d+\\\.", r"_\\d+\\.", re.escape(there[-1])))
    for name in found:
        if name not in there and splits.fullmatch(name):
            losses.add(f"{METADATA_FILE} does not name {name}: the recording did not end properly")
            there.append(name)
    return [found[name] for name in there]


@dataclass
class WrittenFile:
    """A file of a bag; times in ns, None without messages."""

    name: str
    start_ns: int | None = None
    end_ns: int | None = None
    counts: dict[Connection, int] = field(default_factory=dict)


def about(custom: Mapping[str, str], distribution: str) -> Mapping[str, Any]:
    """What a bag's metadata says beside its contents."""
    return {"custom_data": dict(custom), "ros_distro": distribution or "unknown"}


def bag_information(files: Sequence[WrittenFile], about_it: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of metadata.yaml, and of the metadata record that rosbag2 reads from a single mcap file."""
    counts: dict[Connection, int] = {}
    for file in files:
        for connection, count in file.counts.items():
            counts[connection] = counts.get(connection, 0) + count
    starts = [file.start_ns for file in files if file.start_ns is not None]
    ends = [file.end_ns for file in files if file.end_ns is not None]
    return {
        "version": _VERSION,
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
        **about_it,
    }


def write_metadata(folder: Path, files: Sequence[WrittenFile], about_it: Mapping[str, Any]) -> None:
    """Write metadata.yaml atomically."""
    information = bag_information(files, about_it)
    write_text(folder / METADATA_FILE, as_yaml({"rosbag2_bagfile_information": information}))


def as_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=2**16))
