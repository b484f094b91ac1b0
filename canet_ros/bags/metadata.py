# SPDX-License-Identifier: Apache-2.0
"""Reads metadata.yaml, and finds the files of a bag, also without one."""

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
    file = (path if path.is_dir() else path.parent) / METADATA_FILE
    problem = ""
    try:
        loaded = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        metadata: dict[str, Any] = loaded["rosbag2_bagfile_information"]
        names = {PurePath(str(name)).name for name in metadata["relative_file_paths"]}
        for key, kind in (("topics_with_message_count", list), ("custom_data", dict)):
            if not isinstance(metadata.get(key) or kind(), kind):
                raise TypeError(f"{key} is not a {kind.__name__}")
        if path.is_dir() or path.name in names:
            return metadata
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
    found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in _BAG_SUFFIXES)
    # rosbag2 deletes a file once it is completely compressed.
    found = [file for file in found if file.suffix in (".mcap", ".db3") or file.with_suffix("") not in found]
    paths: list[Path] = []
    for name in map(str, metadata.get("relative_file_paths", ())):
        # Versions before 4 name files from the folder above.
        files = (path / name, path / PurePath(name).name) if PurePath(name).name else ()
        choices = (choice for file in files for choice in (file, file.with_suffix(""), Path(f"{file}.zstd")))
        there = next((choice for choice in choices if choice.is_file()), None)
        if there is None:
            losses.add(f"{name}, which {METADATA_FILE} names, is missing")
        elif there not in paths:
            paths.append(there)
    if paths:
        # Recorders write metadata.yaml with each split that is complete; one that is killed leaves a further file.
        splits = re.compile(re.sub(r"_\d+\\\.", r"_\\d+\\.", re.escape(paths[-1].name)))
        for file in found:
            if file not in paths and splits.match(file.name):
                losses.add(f"{METADATA_FILE} does not name {file.name}: the recording did not end properly")
                paths.append(file)
        return paths
    if not found:
        deeper = sorted(file.parent.name for file in path.glob(f"*/{METADATA_FILE}"))
        hint = f"; it contains bags in subfolders; use those: {', '.join(deeper)}" if deeper else ""
        hint = hint or ("; its .bag files are ROS 1 bags" if any(path.glob("*.bag")) else "")
        raise BagError(f"{path} is not a rosbag2: it contains no .mcap or .db3 files{hint}")
    if metadata:
        losses.add(f"{METADATA_FILE} names none of the files found: using them in order of their names")
    return found


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
