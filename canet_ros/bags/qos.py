# SPDX-License-Identifier: Apache-2.0
"""QoS profiles in bags: YAML with policies as numbers (up to metadata version 8) or as names (from 9 on).

Every rosbag2 reads the numbers; versions before 9 read only these.
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
    """Convert profiles, a list or its YAML, to YAML with numeric policies; empty if they are not valid."""
    if not profiles:
        return ""
    try:
        entries = yaml.safe_load(profiles) if isinstance(profiles, str) else profiles
        numbered = [{key: _number(key, value) for key, value in entry.items()} for entry in entries]
    except (AttributeError, TypeError, ValueError, yaml.YAMLError):
        return ""
    return _yaml(numbered)


def profile(reliability: str = "reliable", durability: str = "volatile", depth: int = 10) -> str:
    """One offered profile in the YAML form of bags."""
    entry = {"history": 1, "depth": depth, "deadline": _INFINITE, "lifespan": _INFINITE}
    policies = {"reliability": reliability, "durability": durability, "liveliness": "system_default"}
    entry |= {key: _number(key, value) for key, value in policies.items()}
    entry |= {"liveliness_lease_duration": _INFINITE, "avoid_ros_namespace_conventions": False}
    return _yaml([entry])


def is_latched(profiles: str) -> bool:
    """Whether a profile is transient local."""
    try:
        return any(entry.get("durability") == 1 for entry in yaml.safe_load(profiles) or ())
    except (AttributeError, TypeError, yaml.YAMLError):
        return False


def _number(key: str, value: Any) -> Any:
    return _POLICIES[key].index(value) if key in _POLICIES and isinstance(value, str) else value


def _yaml(entries: list[dict[str, Any]]) -> str:
    # Without aliases, which not every YAML reader supports.
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return str(yaml.dump(entries, Dumper=Dumper, sort_keys=False, default_flow_style=False)).strip()
