# SPDX-License-Identifier: Apache-2.0
"""Reads metadata.yaml, and finds the files of a bag without one."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

import yaml

from canet_ros.bags.bag import BagError, Losses, type_name
from canet_ros.bags.qos import policies_as_numbers

METADATA_FILE = "metadata.yaml"
_BAG_SUFFIXES = (".mcap", ".db3", ".zstd", ".zst")


def read_metadata(path: Path, losses: Losses) -> dict[str, Any]:
    """Contents of metadata.yaml, in the folder or beside the file; empty if missing or unreadable."""
    folder = path if path.is_dir() else path.parent
    file = folder / METADATA_FILE
    if not file.is_file():
        if path.is_dir():
            losses.add(f"{METADATA_FILE} is missing: the recording did not end properly")
        return {}
    try:
        loaded = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        metadata = loaded["rosbag2_bagfile_information"]
        if not isinstance(metadata, dict) or not isinstance(metadata.get("relative_file_paths"), list):
            raise TypeError("it names no files")
        for key, kind in (("topics_with_message_count", list), ("custom_data", dict)):
            if not isinstance(metadata.get(key) or kind(), kind):
                raise TypeError(f"{key} is not a {kind.__name__}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        if path.is_dir():
            reason = " ".join(str(error).split()) or type(error).__name__
            losses.add(f"{METADATA_FILE} cannot be read ({reason}): using the files in order of their names")
        return {}
    if not path.is_dir() and path.name not in {
        PurePath(str(name)).name for name in metadata["relative_file_paths"]
    }:
        return {}
    return metadata


def file_paths(path: Path, metadata: dict[str, Any], losses: Losses) -> list[Path]:
    """The files of a bag; missing ones are added to ``losses``."""
    if not path.is_dir():
        return [path]
    found = sorted(
        (file for file in path.iterdir() if file.is_file() and file.suffix in _BAG_SUFFIXES),
        key=_natural_order,
    )
    if not metadata:
        if not found:
            deeper = sorted(file.parent.name for file in path.glob(f"*/{METADATA_FILE}"))
            hint = f"; it contains bags in subfolders; use those: {', '.join(deeper)}" if deeper else ""
            hint = hint or ("; its .bag files are ROS 1 bags" if any(path.glob("*.bag")) else "")
            raise BagError(
                f"{path} is not a rosbag2: it contains neither {METADATA_FILE} nor .mcap or .db3 files{hint}"
            )
        return _prefer_unpacked(found)
    paths: list[Path] = []
    for name in map(str, metadata["relative_file_paths"]):
        # Versions before 4 name files from the folder above.
        files = (path / name, path / PurePath(name).name) if PurePath(name).name else ()
        choices = (choice for file in files for choice in (file, file.with_suffix(""), Path(f"{file}.zstd")))
        there = next((choice for choice in choices if choice.is_file()), None)
        if there is None:
            losses.add(f"{name}, which {METADATA_FILE} names, is missing")
        elif there not in paths:
            paths.append(there)
    for file in _prefer_unpacked(found) if paths else ():
        # Recorders write metadata.yaml with each split that is complete; one that is killed leaves a further file.
        if file not in paths and _is_split_of_one(file.name, paths[-1].name):
            losses.add(f"{METADATA_FILE} does not name {file.name}: the recording did not end properly")
            paths.append(file)
    if not paths:
        if not found:
            raise BagError(f"{path}: none of the files named in {METADATA_FILE} exists")
        losses.add(f"{METADATA_FILE} names none of the files found: using them in order of their names")
        return found
    return paths


def _prefer_unpacked(found: list[Path]) -> list[Path]:
    """If a file exists compressed and uncompressed, keep the latter: rosbag2 deletes it once the former is complete."""
    return [file for file in found if file.suffix in (".mcap", ".db3") or file.with_suffix("") not in found]


def _is_split_of_one(*names: str) -> bool:
    """Whether the names differ only in their number, such as drive_0.mcap and drive_1.mcap."""
    splits = [re.match(r"(.*_)(\d+)\.", name) for name in names]
    return len({split[1] if split else None for split in splits}) == 1 and all(splits)


def topics_of(metadata: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str]]:
    """QoS and hash of the type by topic and type."""
    topics = {}
    for entry in metadata.get("topics_with_message_count") or ():
        try:
            topic = entry["topic_metadata"]
            key = str(topic["name"]), type_name(str(topic["type"]))
            qos = policies_as_numbers(topic.get("offered_qos_profiles"))
            topics[key] = qos, str(topic.get("type_description_hash") or "")
        except (KeyError, TypeError, AttributeError):
            continue
    return topics


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """drive_2 before drive_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
