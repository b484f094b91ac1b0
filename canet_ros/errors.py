# SPDX-License-Identifier: Apache-2.0
"""Errors that several layers raise, and how they are shown."""

from __future__ import annotations

_REASON_CHARACTERS = 300


class EngineError(RuntimeError):
    """An engine, device or precision that was asked for cannot be had; the message says why and what can."""


def in_one_line(error: BaseException) -> str:
    """Kind and message of what a library threw; OpenVINO's and ONNX Runtime's come in many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith("Exception from"))
    if len(text) > _REASON_CHARACTERS:
        text = f"{text[:_REASON_CHARACTERS]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
