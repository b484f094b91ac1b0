# SPDX-License-Identifier: Apache-2.0
"""colcon test, with the pytest that is here, beside the plugins of a ROS installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_colcon_tests_run_beside_launch_testing_with_any_pytest(tmp_path: Path) -> None:
    """Its plugin (Humble to Kilted) has an argument that pytest 9 does not know; launch_testing_ros builds on it."""
    for plugin in ("launch_testing", "launch_ros"):
        distribution = tmp_path / f"{plugin}_plugin-1.0.dist-info"
        distribution.mkdir()
        (distribution / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {plugin}_plugin\nVersion: 1.0\n"
        )
        (distribution / "entry_points.txt").write_text(f"[pytest11]\n{plugin} = {plugin}_hooks\n")
        (tmp_path / f"{plugin}_hooks.py").write_text("def pytest_pycollect_makemodule(path, parent): ...\n")
    # As colcon calls it: from the package's folder, with what setup.cfg says.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "test/unit/test_hints.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
