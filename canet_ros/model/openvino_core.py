# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's Core, one for the process and never let go."""

from __future__ import annotations

import functools
import threading

import openvino

_lock = threading.Lock()


def openvino_core() -> openvino.Core:
    """The process's Core; safe between threads.

    The CPU plugin gives the thread that loads it a signal stack and takes it away with the last Core: with one for each
    engine, the next signal that Python handles there finds no memory and ends the process.
    """
    with _lock:
        return _core()


@functools.cache
def _core() -> openvino.Core:
    return openvino.Core()
