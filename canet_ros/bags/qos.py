# SPDX-License-Identifier: Apache-2.0
"""QoS profiles as bags hold them: YAML with policies as numbers (to metadata version 8) or as words (from 9 on).

Every rosbag2 reads the numbers; those of before version 9 read nothing else.
"""

from __future__ import annotations

from typing import Any

import yaml

# rmw/types.h, in the order of its numbers
_POLICIES = {
    "history": ("system_default", "keep_last", "keep_all", "unknown"),
    "reliability": ("system_default", "reliable", "best_effort", "unknown", "best_available"),
    "durability": ("system_default", "transient_local", "volatile", "unknown", "best_available"),
    "liveliness": (
        "system_default",
        "automatic",
        "manual_by_node",
        "manual_by_topic",
        "unknown",
        "best_available",
    ),
}
_INFINITE = {"sec": 9223372036, "nsec": 854775807}  # RMW_DURATION_INFINITE


def policies_as_numbers(profiles: Any) -> str:
    """Offered profiles, as a list or as the YAML of one, to YAML with numbers; what is none of these is left out."""
    if not profiles:
        return ""
    try:
        entries = yaml.safe_load(profiles) if isinstance(profiles, str) else profiles
        numbered = [{key: _number(key, value) for key, value in entry.items()} for entry in entries]
    except (AttributeError, TypeError, ValueError, yaml.YAMLError):
        return ""
    return _yaml(numbered)


def profile(reliability: str = "reliable", durability: str = "volatile", depth: int = 10) -> str:
    """One offered profile as bags hold it."""
    entry = {"history": 1, "depth": depth, "deadline": _INFINITE, "lifespan": _INFINITE}
    policies = {"reliability": reliability, "durability": durability, "liveliness": "system_default"}
    entry |= {key: _number(key, value) for key, value in policies.items()}
    entry |= {"liveliness_lease_duration": _INFINITE, "avoid_ros_namespace_conventions": False}
    return _yaml([entry])


def is_latched(profiles: str) -> bool:
    """Whether a profile says that later subscribers get what was published before."""
    try:
        return any(entry.get("durability") == 1 for entry in yaml.safe_load(profiles) or ())
    except (AttributeError, TypeError, yaml.YAMLError):
        return False


def _number(key: str, value: Any) -> Any:
    return _POLICIES[key].index(value) if key in _POLICIES and isinstance(value, str) else value


def _yaml(entries: list[dict[str, Any]]) -> str:
    # Without aliases, which YAML readers in C++ would have to follow.
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return str(yaml.dump(entries, Dumper=Dumper, sort_keys=False, default_flow_style=False)).strip()
