# SPDX-License-Identifier: Apache-2.0
"""Errors that several layers raise, and how they are shown."""

from __future__ import annotations

_REASON_CHARACTERS = 300


class EngineError(RuntimeError):
    """A requested engine, device or precision is not available; the message gives the reason and the alternatives."""


class ModelError(ValueError):
    """A model that is not there, or is broken; the message says what to do."""


def in_one_line(error: BaseException) -> str:
    """Type and message of an error of a library, in one line; those of OpenVINO and ONNX Runtime have many."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith("Exception from"))
    if len(text) > _REASON_CHARACTERS:
        text = f"{text[:_REASON_CHARACTERS]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
