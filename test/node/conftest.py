# SPDX-License-Identifier: Apache-2.0
"""Tests of this folder start nodes: they carry the marker ``ros``, and are left out where there is no rclpy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("rclpy") else ["test_*.py"]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ros)


@pytest.fixture(scope="module")
def fault_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Steers ``faulty_node.py``; the module's nodes have a cache of their own."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "fault").write_text("none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANET_TEST_FAULT", str(folder / "fault"))
        patch.setenv("CANET_ROS_CACHE", str(folder / "cache"))
        yield folder / "fault"
