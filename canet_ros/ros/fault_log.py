# SPDX-License-Identifier: Apache-2.0
"""Logs faults that may recur with every frame, without repeats."""

from __future__ import annotations

import enum
import threading
import time
from typing import Any, NamedTuple

QUIET_S = 10.0  # a fault is logged again after this time without it
_MAX_CHARACTERS = 600  # texts can quote received data


class Fault(enum.Enum):
    """Kind of a fault; the value is published on /diagnostics as ``fault``."""

    NONE = ""
    NOT_CONFIGURED = "not_configured"
    NOT_ACTIVATED = "not_activated"
    MODEL_NOT_LOADED = "model_not_loaded"
    MODEL_KEPT = "model_kept"
    ENGINE_BROKEN = "engine_broken"
    INFERENCE_FAILED = "inference_failed"
    BATCH_REDUCED = "batch_reduced"
    CLOCK_MISSING = "clock_missing"
    CALLBACK_FAILED = "callback_failed"
    IMAGE_REFUSED = "image_refused"
    FRAME_TOO_OLD = "frame_too_old"
    QOS_INCOMPATIBLE = "qos_incompatible"
    LOSSES_UNKNOWN = "losses_unknown"
    ASPECT_RATIO = "aspect_ratio"
    CAMERA_INFO_MISSING = "camera_info_missing"
    CAMERA_INFO_OUTDATED = "camera_info_outdated"
    CAMERA_INFO_INVALID = "camera_info_invalid"
    POINTS_FAILED = "points_failed"
    GROUND_FAILED = "ground_failed"
    PUBLISHING_FAILED = "publishing_failed"
    ENCODING_FAILED = "encoding_failed"


class ReportedFault(NamedTuple):
    kind: Fault = Fault.NONE
    text: str = ""


class FaultLog:
    """Logs each kind of fault of each source once, until it has been absent for ``QUIET_S``. Thread-safe."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._seen_s: dict[tuple[str, Fault], float] = {}
        self._advised: set[tuple[str, Fault]] = set()
        self._last: dict[str, ReportedFault] = {}
        self._lock = threading.Lock()

    def report(self, source: str, kind: Fault, text: str) -> None:
        """Remember a fault; log it if its kind has been absent for ``QUIET_S``."""
        now_s = time.monotonic()
        with self._lock:
            self._last[source] = fault = ReportedFault(kind, text[:_MAX_CHARACTERS])
            absent_s = now_s - self._seen_s.get((source, kind), -QUIET_S)
            self._seen_s[source, kind] = now_s
        if absent_s > QUIET_S:
            self._logger.error(f"{source}: {fault.text} (repeats are suppressed; see /diagnostics)")

    def advise(self, source: str, kind: Fault, text: str) -> None:
        """Log a warning once for each kind; it does not count as a fault."""
        with self._lock:
            if (source, kind) in self._advised:
                return
            self._advised.add((source, kind))
        self._logger.warning(f"{source}: {text}")

    def remember(self, source: str, kind: Fault = Fault.NONE, text: str = "") -> None:
        """Set the source's last fault without logging it; without a kind, clear it."""
        with self._lock:
            self._last[source] = ReportedFault(kind, text[:_MAX_CHARACTERS])

    def last(self, source: str) -> ReportedFault:
        """The source's last fault."""
        with self._lock:
            return self._last.get(source, ReportedFault())

    def all_last(self) -> dict[str, ReportedFault]:
        """The last fault by source."""
        with self._lock:
            return dict(self._last)
