# SPDX-License-Identifier: Apache-2.0
"""Latched messages from before the start of a cut bag, found by the index."""

from __future__ import annotations

from collections.abc import Iterable

from canet_ros.bags.bag import Message
from canet_ros.bags.message_types import MessageError, from_cdr
from canet_ros.bags.qos import is_latched
from canet_ros.bags.reading import Bag

_TRANSFORMS = "tf2_msgs/msg/TFMessage"


def latched(bag: Bag, before_ns: int) -> list[Message]:
    """Messages that a subscriber joining at ``before_ns`` would receive, oldest first.

    The last message of each latched topic; of tf_static, all messages with the last value of a transform.
    """
    streams = dict.fromkeys(
        c.stream for c in bag.connections if is_latched(c.qos) or _is_tf_static(c.topic, c.msgtype)
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
            transforms = from_cdr(message.data, _TRANSFORMS).transforms
        except MessageError:
            continue
        frames = {str(transform.child_frame_id) for transform in transforms}
        if frames - seen:
            found.append(message)
        seen |= frames
    return found[::-1]
