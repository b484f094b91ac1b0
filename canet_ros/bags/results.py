# SPDX-License-Identifier: Apache-2.0
"""Converts results to the messages that the node would publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canet_ros.bags.bag import CAMERA_INFO as CAMERA_INFO_TYPE
from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE, Connection
from canet_ros.bags.message_types import LABEL_INFO as LABEL_INFO_TYPE
from canet_ros.bags.message_types import connection, new, to_cdr
from canet_ros.bags.qos import profile
from canet_ros.messages.images import encode_compressed, image_fields
from canet_ros.messages.results import MESSAGE_OUTPUTS, POINT_CLOUD
from canet_ros.pipeline.outputs import CAMERA_INFO, LABEL_INFO, ImageOutput, RenderInput, is_cloud, render


def result_connection(results: str, output: str, distribution: str) -> Connection:
    """The topic of an output under a camera's prefix."""
    if output == LABEL_INFO:
        qos = profile("RELIABLE", "TRANSIENT_LOCAL", depth=1)
        return connection(f"{results}/{output}", LABEL_INFO_TYPE, qos, distribution)
    if output == CAMERA_INFO:
        msgtype = CAMERA_INFO_TYPE
    elif output in MESSAGE_OUTPUTS:
        msgtype = MESSAGE_OUTPUTS[output].msgtype
    elif is_cloud(output):
        msgtype = POINT_CLOUD
    else:
        msgtype = COMPRESSED_IMAGE if output.endswith("/compressed") else IMAGE
    return connection(f"{results}/{output}", msgtype, profile("RELIABLE", "VOLATILE", depth=2), distribution)


def frame_messages(
    header: Any,
    drawing: RenderInput,
    image_outputs: Mapping[str, ImageOutput],
    outputs: Sequence[str],
    jpeg_quality: int,
) -> dict[str, bytes]:
    """CDR of the outputs that are rendered from one frame.

    Args:
        header: std_msgs/Header of the camera's message, which every result carries.
    """
    messages = {}
    for name, output, pixels, raw, compressed in render(drawing, image_outputs, outputs):
        if raw:
            fields = image_fields(pixels, output.encoding)
            message = new(IMAGE, header=header, **fields, data=np.ascontiguousarray(pixels).reshape(-1))
            messages[name] = to_cdr(message, IMAGE)
        if compressed:
            text, data = encode_compressed(pixels, output.encoding, output.codec, jpeg_quality)
            message = new(COMPRESSED_IMAGE, header=header, format=text, data=data.reshape(-1))
            messages[f"{name}/compressed"] = to_cdr(message, COMPRESSED_IMAGE)
    for name in MESSAGE_OUTPUTS.keys() & outputs:
        msgtype, build = MESSAGE_OUTPUTS[name]
        messages[name] = to_cdr(build(new, header, drawing), msgtype)
    return messages
