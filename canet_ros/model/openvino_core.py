# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's Core: one for the process, never released.

The CPU plugin gives the thread that loads it a signal stack and takes it away with the last Core: with one for each
engine, the next signal that Python handles there finds no memory and ends the process.
"""

from __future__ import annotations

import openvino

CORE = openvino.Core()
