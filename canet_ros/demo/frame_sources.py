# SPDX-License-Identifier: Apache-2.0
"""Images for the street camera from the user's images, video or rosbag2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.hints import missing_package
from canet_ros.inference.pictures import differences_from_file, find_files, open_pictures
from canet_ros.messages.images import ImageError, frame_from_compressed, frame_from_image

Image = NDArray[np.uint8]
"""(H, W, 3) BGR or (H, W) grey."""

_BAG_SUFFIXES = frozenset((".mcap", ".db3"))
_DECODERS: dict[str, Callable[[Any], Image]] = {
    "sensor_msgs/msg/Image": frame_from_image,
    "sensor_msgs/msg/CompressedImage": frame_from_compressed,
}


def input_images(path: Path, warn: Callable[[str], None]) -> Iterator[Image]:
    """Images of an image file, a folder of images (by name), a video, or a rosbag2 (the topic with most images).

    Args:
        path: file or folder.
        warn: called with a message for each unreadable image, which is skipped.

    Raises:
        ValueError: no such input at the path, or rosbags is needed and not installed.
    """
    if (path / "metadata.yaml").is_file() or path.suffix in _BAG_SUFFIXES:
        return _bag_images(path, warn)
    for sentence in differences_from_file(find_files(path)):
        warn(sentence)
    return (picture.image for picture in open_pictures(path, warn).pictures)


def _bag_images(path: Path, warn: Callable[[str], None]) -> Iterator[Image]:
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise ValueError(
            f"input {path} is a rosbag2: {missing_package(str(error.name).partition('.')[0])}"
        ) from None
    # Bags recorded on Humble do not contain message definitions.
    reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
    try:
        reader.open()
    except (AnyReaderError, OSError) as error:
        raise ValueError(f"cannot read input {path} as a rosbag2: {error}") from error
    connections = [connection for connection in reader.connections if connection.msgtype in _DECODERS]
    if not connections:
        reader.close()
        raise ValueError(f"input {path} has no topic of {' or '.join(_DECODERS)}")
    connection = max(connections, key=lambda candidate: candidate.msgcount)

    def images() -> Iterator[Image]:
        for _, _, data in reader.messages([connection]):
            try:
                message = reader.deserialize(data, connection.msgtype)
                yield _DECODERS[connection.msgtype](message)
            except ImageError as error:
                warn(f"{connection.topic}: {error}: skipped")
        reader.close()

    return images()
