# SPDX-License-Identifier: Apache-2.0
"""QoS profiles in bags: YAML with policies as numbers (up to metadata version 8) or as names (from 9 on).

Every rosbag2 reads the numbers; versions before 9 read only these.
"""

from __future__ import annotations

from typing import Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos

_FOREVER = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE


def policies_as_numbers(profiles: Any) -> str:
    """Convert profiles, a list or its YAML, to YAML with numeric policies; empty if they are not valid."""
    try:
        return str(dump_qos_v8(parse_qos(profiles)))
    except (ReaderError, AttributeError, KeyError, TypeError, ValueError):
        return ""


def profile(reliability: str, durability: str, depth: int) -> str:
    """One offered profile in the YAML form of bags, of policies such as ``RELIABLE`` and ``VOLATILE``."""
    policies = QosReliability[reliability], QosDurability[durability]
    deadlines, liveliness = (_FOREVER, _FOREVER), (QosLiveliness.SYSTEM_DEFAULT, _FOREVER)
    return str(dump_qos_v8([Qos(QosHistory.KEEP_LAST, depth, *policies, *deadlines, *liveliness, False)]))


def is_latched(profiles: str) -> bool:
    """Whether a profile, as ``policies_as_numbers`` returns it, is transient local."""
    return any(found.durability == QosDurability.TRANSIENT_LOCAL for found in parse_qos(profiles))
