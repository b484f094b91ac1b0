# SPDX-License-Identifier: Apache-2.0
"""cv_bridge where it is there: asked for what our table does not know, and its pixels against ours.

Stand-ins take cv_bridge's place to show what happens when it raises or ends its process; the comparison needs the real
one and is skipped without it.
"""

from __future__ import annotations

import array
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg")
from sensor_msgs.msg import Image

from canet_ros.messages import bridge
from canet_ros.messages.images import ENCODINGS, ImageError, frame_from_image

WORKING = """
import numpy as np
class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        assert encoding == "bgr8"
        if message.encoding == "depth9":
            raise RuntimeError("[depth9] is not a color format")
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        return pixels[..., ::-1] if message.encoding == "rgb8" else pixels
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def install(text: str) -> None:
        (tmp_path / "cv_bridge").mkdir()
        (tmp_path / "cv_bridge" / "__init__.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
        bridge.bridge_problem.cache_clear()

    yield install
    sys.modules.pop("cv_bridge", None)
    bridge.bridge_problem.cache_clear()


def message_of(encoding: str, pixels: np.ndarray) -> Image:
    height, width = pixels.shape[:2]
    data = array.array("B", pixels.tobytes())
    return Image(height=height, width=width, step=pixels.nbytes // height, encoding=encoding, data=data)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def test_an_encoding_of_tomorrow_is_asked_of_cv_bridge(stand_in: Callable[[str], None]) -> None:
    stand_in(WORKING)
    np.testing.assert_array_equal(frame_from_image(message_of("bgr_of_tomorrow", PIXELS)), PIXELS)
    with pytest.raises(ImageError, match=r"'depth9' is not understood.*not a color format"):
        frame_from_image(message_of("depth9", PIXELS))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ImportError('numpy.core.multiarray failed to import')", "multiarray failed to import"),
        ("raise AttributeError('_ARRAY_API not found')", "_ARRAY_API not found"),
        ("import os; os.abort()", "ends the process that imports it"),
        ("CvBridge = None", "does not work"),
    ],
)
def test_a_broken_cv_bridge_is_left_alone_and_named(
    stand_in: Callable[[str], None], text: str, words: str
) -> None:
    stand_in(text)
    assert words in bridge.bridge_problem()
    with pytest.raises(ImageError, match="'bgr_of_tomorrow' is not understood; these are: bgr8"):
        frame_from_image(message_of("bgr_of_tomorrow", PIXELS))
    np.testing.assert_array_equal(frame_from_image(message_of("bgr8", PIXELS)), PIXELS)


def test_the_table_gives_cv_bridges_pixels() -> None:
    """Equal; of 16 bits ours takes the high byte and cv_bridge rounds, which is 1 at most."""
    cv_bridge = pytest.importorskip("cv_bridge")
    if bridge.bridge_problem():
        pytest.skip(bridge.bridge_problem())
    widths = {"yuv": 2, "uyv": 2, "nv1": 1, "nv2": 1, "mon": 1, "bay": 1}
    compared = 0
    for encoding in ENCODINGS:
        channels = 4 if encoding[3:4] == "a" or encoding.endswith("C4") else widths.get(encoding[:3], 3)
        channels = 1 if encoding.endswith("C1") else channels
        size = 2 if "16" in encoding else 1
        rows = {"nv12": 24, "nv21": 24, "nv24": 48}.get(encoding, 16)
        noise = np.random.default_rng(0).integers(0, 256, (rows, 16 * channels * size), np.uint8)
        message = message_of(encoding, noise)
        message.height, message.width = 16, 16
        message.step = 16 * channels * size
        try:
            theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, "bgr8")
        except Exception:  # an encoding that cv_bridge does not know, or gives no colours
            continue
        ours = frame_from_image(message)
        ours = ours if ours.ndim == 3 else np.repeat(ours[..., None], 3, axis=2)
        apart = np.abs(ours.astype(int) - theirs.astype(int))
        assert apart.max() <= size - 1, encoding
        compared += 1
    assert compared >= 18
