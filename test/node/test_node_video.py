# SPDX-License-Identifier: Apache-2.0
"""Video in, masks out, with the messages of ffmpeg_image_transport and of Foxglove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, health, pixels_of, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from video_streams import stream

from canet_ros.messages.video import VideoDecoder, VideoPacket
from canet_ros.pipeline.segmenter import Segmenter

MASK = "/camera/segmentation/mask"


def message_of(transport: str, data: bytes, key: bool, header: Header) -> Any:
    if transport == "ffmpeg":
        package = pytest.importorskip("ffmpeg_image_transport_msgs.msg")
        return package.FFMPEGPacket(header=header, encoding="libx264", flags=int(key), data=data)
    package = pytest.importorskip("foxglove_msgs.msg")
    return package.CompressedVideo(timestamp=header.stamp, frame_id=header.frame_id, format="h264", data=data)


@pytest.mark.parametrize("transport", ["ffmpeg", "foxglove"])
def test_video_is_segmented_exactly(
    transport: str, random_model: Path, graph: Graph, segmenter: Segmenter
) -> None:
    packets = stream("libx264", range(20))
    decoder = VideoDecoder()
    message_type = type(message_of(transport, b"", False, Header()))
    with segmentation_node(random_model, image_transport=transport) as process:
        graph.wait_for_state("active")
        camera = graph.camera(f"/camera/image_raw/{transport}", message_type)
        masks = graph.listen(Image, MASK)
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        camera.wait_for_subscriber()
        images = {}
        for packet in packets[5:]:  # the first keyframe is lost
            header = Header(stamp=camera.now(), frame_id="front")
            message = message_of(transport, packet.data, packet.key, header)
            for frame in decoder.decode(VideoPacket.of(message)):
                if not frame.problem:
                    images[header.stamp.sec, header.stamp.nanosec] = frame.pixels()
            camera.publish(message)
            if images:
                masks.wait_for_stamp(header.stamp)
        for mask in masks.messages:
            assert mask.header.frame_id == "front"
            pixels = images[mask.header.stamp.sec, mask.header.stamp.nanosec]
            np.testing.assert_array_equal(pixels_of(mask), segmenter(pixels).mask)
        values = wait_until(
            lambda: (v := health(diagnostics, "/camera/image_raw")).get("published") == "10" and v, "counts"
        )
        assert (values["received"], values["dropped"], values["dropped_bad"]) == ("15", "5", "5")
        assert float(values["decode_p50_ms"]) > 0
        assert "suppressed" not in process.output(), "waiting for the first keyframe is not a fault"
        graph.clear()
