# SPDX-License-Identifier: Apache-2.0
"""Images for the street camera from the user's images, video or rosbag2."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from canet_ros.hints import missing_package
from canet_ros.messages.images import ImageMessageError
from canet_ros.pipeline.image_files import differences_from_file, find_files, open_images

Image = NDArray[np.uint8]
"""(H, W, 3) BGR or (H, W) grey."""

_BAG_SUFFIXES = frozenset((".mcap", ".db3"))


def input_images(path: Path, warn: Callable[[str], None]) -> Iterator[Image]:
    """Images of an image file, a folder of images (by name), a video, or a rosbag2 (the camera with most images).

    Args:
        path: file or folder.
        warn: called with a message for each unreadable image, which is skipped.

    Raises:
        ValueError: no such input at the path, or a package that reads bags is not installed. For bags, raised with the
            first image.
    """
    if (path / "metadata.yaml").is_file() or path.suffix in _BAG_SUFFIXES:
        return _bag_images(path, warn)
    for sentence in differences_from_file(find_files(path)):
        warn(sentence)
    return (named.image for named in open_images(path, warn).images)


def _bag_images(path: Path, warn: Callable[[str], None]) -> Iterator[Image]:
    try:
        from canet_ros.bags.cameras import choose_cameras
        from canet_ros.bags.images import image_messages
        from canet_ros.bags.reading import open_bag
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ValueError(f"input {path} is a rosbag2: {missing_package(package)}") from None
    with tempfile.TemporaryDirectory() as scratch, open_bag(path, Path(scratch)) as bag:
        cameras = choose_cameras(bag, (), lambda _: None)
        camera = max(cameras, key=lambda camera: bag.counts.get(camera.topic, 0))
        for _, decode in image_messages(bag, {camera.connection.stream}):
            try:
                yield decode()[1]
            except ImageMessageError as error:
                warn(f"{camera.topic}: {error}: skipped")
        for problem in bag.losses.problems:
            warn(problem)
