# SPDX-License-Identifier: Apache-2.0
"""What to type, or to read, in words that hold where they are shown: in a checkout, a workspace, an environment."""

from __future__ import annotations

import importlib.util
import linecache
import os
import shutil
import sys
import traceback
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


def optional_import_problem(package: str, error: BaseException) -> str:
    """Why an optional package could not be imported: it is not there, or it is and is broken."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return f"{package} is not installed"
    return f"{package} is installed, but broken: {type(error).__name__}: {' '.join(str(error).split())}"


def import_problem(error: BaseException) -> str:
    """What an exception says of the package that it kept from being imported; empty: it came from no import.

    Packages raise what they like: an ImportError for a library that is not there, NumPy's advice of a page, SystemExit.
    """
    frames = traceback.walk_tb(error.__traceback__)
    modules = [(frame, line) for frame, line in frames if frame.f_code.co_name == "<module>"]
    if not modules:
        return ""
    names = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in modules]
    foreign = [name for name in names if name not in (*sys.stdlib_module_names, "canet_ros", "__main__")]
    place = modules[-1][0].f_code.co_filename
    if isinstance(error, SyntaxError):  # there is no frame of what was not compiled
        place = error.filename or f"by {linecache.getline(place, modules[-1][1]).strip()}"
    while error.__cause__ is not None:  # what NumPy's advice is about
        error = error.__cause__
    text = " ".join(str(error).split())
    package = foreign[-1] if foreign else "a package"
    return f"{package} is broken: {type(error).__name__}: {text or 'without a word'} ({place})"


def engine_module(name: str) -> str:
    """The module of an engine of ``names.ENGINES``: its name, or TensorRT for RTX where that alone is installed."""
    for_rtx = "tensorrt_rtx_bindings"
    if name == "tensorrt" and importlib.util.find_spec(name) is None and importlib.util.find_spec(for_rtx):
        return for_rtx
    return name


def install_engine(name: str) -> str:
    """How to get an engine of ``names.ENGINES``: all but torch read the network as ONNX."""
    if name == "tensorrt":
        return f"{pip_install(name, 'cuda-bindings', 'onnx')}; on a Jetson, {see_docs('jetson.md')}"
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
