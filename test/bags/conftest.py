# SPDX-License-Identifier: Apache-2.0
"""A drive of two cameras, and the command that segments it with a small exact model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("rosbags")  # brings lz4 and zstandard
pytest.importorskip("hypothesis")
sys.path.insert(0, str(Path(__file__).parent))

import drives

from canet_ros.cli import main

EXACT = ("--engine", "torch", "--precision", "fp32", "--device", "cpu")
Segment = Callable[..., int]


@pytest.fixture(scope="session")
def messages() -> Sequence[drives.Recorded]:
    return drives.drive_messages(drives.images(5))


@pytest.fixture(scope="session")
def segment(random_model: Path) -> Segment:
    """``canet segment-bag`` with a model of random weights; the exit status."""

    def run(*arguments: object) -> int:
        return main(["segment-bag", *map(str, arguments), "--model", str(random_model), *EXACT])

    return run


@pytest.fixture
def report(tmp_path: Path) -> Callable[[], list[dict]]:
    """What --json wrote to report.json."""
    return lambda: json.loads((tmp_path / "report.json").read_text())
