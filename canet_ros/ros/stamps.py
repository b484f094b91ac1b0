# SPDX-License-Identifier: Apache-2.0
"""Message stamps as integers."""

from __future__ import annotations

from typing import Any


def nanoseconds(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` in ns; 0 is what drivers send that do not stamp."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def age_s(stamp: Any, now_ns: int) -> float | None:
    """Seconds from a stamp to now; None where that says nothing: no stamp, or a clock that was turned back."""
    stamp_ns = nanoseconds(stamp)
    return (now_ns - stamp_ns) / 1e9 if 0 < stamp_ns <= now_ns else None
