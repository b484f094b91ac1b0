# SPDX-License-Identifier: Apache-2.0
"""What a cut bag needs from before its beginning: the last words of latched topics, found by the index."""

from __future__ import annotations

from collections.abc import Iterable

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import MessageError, decoded
from canet_ros.bags.qos import is_latched
from canet_ros.bags.reading import Bag, defined

_TRANSFORMS = "tf2_msgs/msg/TFMessage"


def latched(bag: Bag, before_ns: int) -> list[Message]:
    """What a subscriber that comes at ``before_ns`` would be given, oldest first.

    Of each latched topic the last message; of tf_static, which many publish, all that hold a transform's last value.
    """
    streams = dict.fromkeys(
        c.stream
        for c in bag.connections
        if is_latched(defined(c, bag).qos) or _is_tf_static(c.topic, c.msgtype)
    )
    found: list[Message] = []
    for topic, msgtype, encoding in streams:
        newest_first = bag.newest_first((topic, msgtype, encoding), before_ns)
        if _is_tf_static(topic, msgtype):
            found += _last_transforms(newest_first)
        else:
            found += [message for message, _ in zip(newest_first, range(1))]
    return sorted(found, key=lambda message: message.log_ns)


def _is_tf_static(topic: str, msgtype: str) -> bool:
    return topic.endswith("/tf_static") and msgtype == _TRANSFORMS


def _last_transforms(newest_first: Iterable[Message]) -> list[Message]:
    seen: set[str] = set()
    found = []
    for message in newest_first:
        try:
            transforms = decoded(message.data, _TRANSFORMS).transforms
        except MessageError:
            continue
        frames = {str(transform.child_frame_id) for transform in transforms}
        if frames - seen:
            found.append(message)
        seen |= frames
    return found[::-1]
