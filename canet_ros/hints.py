# SPDX-License-Identifier: Apache-2.0
"""What to type, or to read, in words that hold where they are shown: in a checkout, a workspace, an environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from canet_ros.share import share_folders


def pip_install(*packages: str) -> str:
    """How to get packages that rosdep has no key for. Ours is on no registry, so its extras cannot be asked for."""
    return f"pip install {' '.join(dict.fromkeys(packages))}"


def missing_package(module: str) -> str:
    """What is said of an ``import module`` that finds nothing, and how to get it."""
    if module == "rclpy" or module.endswith("_msgs"):
        return f"no {module}: {install_ros()}"
    package = {"cv2": "opencv-python-headless", "yaml": "pyyaml"}.get(module, module)
    return f"no {module}: {pip_install(package)}"


def not_imported(package: str, error: BaseException) -> str:
    """Why an optional package could not be imported: it is not there, or it is and is broken."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return f"{package} is not installed"
    return f"{package} is installed, but broken: {type(error).__name__}: {' '.join(str(error).split())}"


def install_engine(name: str) -> str:
    """How to get an engine of ``names.ENGINES``: all but torch read the network as ONNX."""
    return pip_install(name) if name == "torch" else pip_install(name, "onnx")


def install_ros() -> str:
    """How to get ROS 2."""
    return f"source /opt/ros/DISTRO/setup.bash; where there is none, {see_docs('install.md')}"


def canet_command(arguments: str) -> str:
    """``canet ARGUMENTS`` as a shell takes it here: colcon puts no program on PATH."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    in_workspace = any((prefix / "lib" / "canet_ros" / "canet").is_file() for prefix in prefixes)
    program = "ros2 run canet_ros canet" if in_workspace and not shutil.which("canet") else "canet"
    return f"{program} {arguments}"


def see_docs(page: str) -> str:
    """``see FILE`` for a page of the documentation, given by its name in docs/."""
    files = [folder / page for folder in share_folders("docs")]
    return f"see {next((str(file) for file in files if file.is_file()), f'docs/{page} of canet_ros')}"
