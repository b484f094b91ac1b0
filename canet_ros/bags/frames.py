# SPDX-License-Identifier: Apache-2.0
"""Exports a segmented bag as masks, training data and videos."""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE, IMAGE_TYPES, BagError, Connection
from canet_ros.bags.cameras import camera_topic
from canet_ros.bags.images import image_messages
from canet_ros.bags.label_folder import LabelFolder
from canet_ros.bags.message_types import header_stamp_ns
from canet_ros.bags.reading import Bag
from canet_ros.files import atomic_write, require_new
from canet_ros.messages.images import ImageMessageError
from canet_ros.messages.video import video_problem
from canet_ros.pipeline.video_file import AppendFrame, h264_file

STAMPS_FILE = "stamps.csv"
_WAITING = 64


@dataclass(frozen=True)
class ResultImage:
    """A result image, with the camera's image if requested.

    Attributes:
        camera: prefix of the results without ``segmentation``: /front.
        pixels: uint8, of the requested result topic.
        camera_image: the camera's, (H, W, 3) BGR or (H, W) grey uint8; None: not requested, or not in the bag.
    """

    camera: str
    stamp_ns: int
    log_ns: int
    pixels: NDArray[np.uint8]
    camera_image: NDArray[np.uint8] | None = None


def result_images(bag: Bag, name: str, with_images: bool = False) -> Iterator[ResultImage]:
    """Images of a result (``mask``, ``overlay``, ``confidence``) of all cameras, raw or compressed.

    Raises:
        BagError: no camera of the bag has that result.
    """
    chosen: dict[str, Connection] = {}  # by camera
    for connection in sorted(bag.connections, key=lambda c: c.topic, reverse=True):  # raw after compressed
        camera, found, form = connection.topic.partition(f"/segmentation/{name}")
        is_image = connection.msgtype in (IMAGE, COMPRESSED_IMAGE)
        if found and form in ("", "/compressed") and is_image:
            chosen[camera] = connection
    if not chosen:
        raise BagError(f"{bag.path} has no topic .../segmentation/{name}: segment it with canet segment-bag")
    images: dict[tuple[str, int], NDArray[np.uint8]] = {}
    results = {connection.stream: camera for camera, connection in chosen.items()}
    types = (IMAGE, COMPRESSED_IMAGE) if video_problem() else IMAGE_TYPES
    images_of = [c for c in bag.connections if c.msgtype in types and "/segmentation/" not in c.topic]
    cameras = {c.stream for c in images_of if with_images}
    for message, decode in image_messages(bag, cameras | results.keys()):
        connection = message.connection
        try:
            header, pixels = decode()
        except ImageMessageError:
            continue
        stamp = header_stamp_ns(header)
        if connection.stream in results:
            camera = results[connection.stream]
            yield ResultImage(camera, stamp, message.log_ns, pixels, images.pop((camera, stamp), None))
        else:
            base = camera_topic(connection)
            for key in ((base.rpartition("/")[0], stamp), (base, stamp)):
                images[key] = pixels
            while len(images) > _WAITING:
                images.pop(next(iter(images)))


class FileNames:
    """Unique file names for images. Drivers may send equal stamps, or none."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def name(self, camera: str, stamp_ns: int, log_ns: int) -> str:
        """``front_1700000000.123456789``; uses the log time if the image has no stamp."""
        time_ns = stamp_ns or log_ns
        name = f"{camera_name(camera)}_{time_ns // 10**9}.{time_ns % 10**9:09d}"
        self._given[name] += 1
        return name if self._given[name] == 1 else f"{name}_{self._given[name]}"


def camera_name(camera: str) -> str:
    """/front/left to front_left."""
    return camera.strip("/").replace("/", "_") or "camera"


def write_masks(bag: Bag, masks: LabelFolder) -> None:
    """Write a PNG of class ids for each image, then stamps.csv with one row each."""
    stamps, names = masks.folder / STAMPS_FILE, FileNames()
    rows = {"file": ["file", "camera", "stamp_ns", "recorded_ns"]}
    if stamps.is_file():
        with stamps.open(newline="", encoding="utf-8") as file:
            rows |= {row[0]: row for row in csv.reader(file) if row}
    for frame in result_images(bag, "mask"):
        name = names.name(frame.camera, frame.stamp_ns, frame.log_ns)
        masks.write(name, {"": frame.pixels})
        row = [f"{name}.png", frame.camera, str(frame.stamp_ns), str(frame.log_ns)]
        rows.setdefault(row[0], row)
    with atomic_write(stamps) as path, path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows.values())


def write_labels(bag: Bag, labels: LabelFolder) -> None:
    """Images and their masks in the layout that ``canet train`` reads.

    Raises:
        BagError: the bag does not hold the camera's images.
    """
    names = FileNames()
    for frame in result_images(bag, "mask", with_images=True):
        if frame.camera_image is None:
            continue
        height, width = frame.camera_image.shape[:2]
        mask = frame.pixels
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[assignment]
        name = names.name(frame.camera, frame.stamp_ns, frame.log_ns)
        labels.write(name, {"images": frame.camera_image, "labels": mask})
    if labels.added + labels.kept == 0:
        raise BagError(f"{bag.path} does not contain the camera's images: --labels needs them and the masks")


def write_videos(bag: Bag, path: Path, force: bool = False) -> list[Path]:
    """Write the overlays as H.264 with the frames' own times, one file per camera, atomically; return the files.

    Args:
        force: replace files that exist.

    Raises:
        BagError: the bag holds no overlays.
        OSError: a file cannot be written, or exists.
    """
    prefixes = {c.topic.partition("/segmentation/overlay") for c in bag.connections}
    several = len({prefix for prefix, found, _ in prefixes if found}) > 1
    files: dict[str, tuple[AppendFrame, int]] = {}
    paths = []
    with contextlib.ExitStack() as open_files:
        for frame in result_images(bag, "overlay"):
            if frame.camera not in files:
                suffix = f"_{camera_name(frame.camera)}" if several else ""
                file = path.with_name(f"{path.stem}{suffix}{path.suffix}")
                if not force:
                    require_new(file)
                files[frame.camera] = open_files.enter_context(h264_file(file)), frame.log_ns
                paths.append(file)
            append, start_ns = files[frame.camera]
            append(frame.pixels, (frame.log_ns - start_ns) / 1e9)
    return paths
