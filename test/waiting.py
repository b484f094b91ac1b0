# SPDX-License-Identifier: Apache-2.0
"""Tests wait for conditions, never for times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

WAIT_S = 180.0  # for what takes a second or two on an idle machine; a busy one starts a node in a minute


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Wait until the condition holds, and return its value; fail naming ``what`` did not come."""
    end_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end_s:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(0.01)
    return value
