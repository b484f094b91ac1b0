# SPDX-License-Identifier: Apache-2.0
"""Location of the files that are installed with the code: models, configuration, launch files, docs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def share_folders(name: str) -> list[Path]:
    """All folders ``name`` of the package: in a source checkout, in sourced workspaces, in the environment."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders = [Path(__file__).resolve().parents[1] / name]
    folders += [prefix / "share" / "canet_ros" / name for prefix in (*prefixes, Path(sys.prefix))]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
