# SPDX-License-Identifier: Apache-2.0
"""Commands and pages that messages recommend, valid in a checkout, a colcon workspace and a pip environment."""

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
    """``pip install PACKAGES``. This package is not on PyPI, so pip cannot install its extras by name."""
    return f"pip install {' '.join(dict.fromkeys(packages))}"


def missing_package(module: str) -> str:
    """The message for a module that is not installed, with the way to install it."""
    if module == "rclpy" or module.endswith("_msgs"):
        return f"no {module}: {install_ros()}"
    package = {"cv2": "opencv-python-headless", "yaml": "pyyaml"}.get(module, module)
    return f"no {module}: {pip_install(package)}"


def optional_import_problem(package: str, error: BaseException) -> str:
    """Why an optional package could not be imported: not installed, or installed but broken."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return f"{package} is not installed"
    return f"{package} is installed, but broken: {type(error).__name__}: {' '.join(str(error).split())}"


def import_problem(error: BaseException) -> str:
    """Which package an exception kept from being imported, and why; empty: it was not raised by an import.

    Packages raise anything on import: OSError for a missing library, NumPy's page of advice, SystemExit.
    """
    frames = traceback.walk_tb(error.__traceback__)
    modules = [(frame, line) for frame, line in frames if frame.f_code.co_name == "<module>"]
    if not modules:
        return ""
    names = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in modules]
    foreign = [name for name in names if name not in (*sys.stdlib_module_names, "canet_ros", "__main__")]
    source = modules[-1][0].f_code.co_filename
    if isinstance(error, SyntaxError):  # a file that did not compile has no frame
        source = error.filename or f"by {linecache.getline(source, modules[-1][1]).strip()}"
    while error.__cause__ is not None:  # the error behind NumPy's advice
        error = error.__cause__
    text = " ".join(str(error).split())
    package = foreign[-1] if foreign else "a package"
    return f"{package} is broken: {type(error).__name__}: {text or 'no message'} ({source})"


def engine_module(name: str) -> str:
    """The Python module of an engine of ``names.ENGINES``; TensorRT for RTX if only that one is installed."""
    for_rtx = "tensorrt_rtx_bindings"
    if name == "tensorrt" and importlib.util.find_spec(name) is None and importlib.util.find_spec(for_rtx):
        return for_rtx
    return name


def install_engine(name: str) -> str:
    """How to install an engine of ``names.ENGINES``; all but torch also need onnx."""
    if name == "tensorrt":
        return f"{pip_install(name, 'cuda-bindings', 'onnx')}; on a Jetson, {see_docs('how-to/jetson.md')}"
    return pip_install(name) if name == "torch" else pip_install(name, "onnx")


def install_ros() -> str:
    """How to make ROS 2 available."""
    return f"source /opt/ros/DISTRO/setup.bash; if ROS 2 is not installed, {see_docs('how-to/install.md')}"


def canet_command(arguments: str) -> str:
    """``canet ARGUMENTS`` as the user's shell runs it; in a colcon workspace ``canet`` is not on PATH."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    in_workspace = any((prefix / "lib" / "canet_ros" / "canet").is_file() for prefix in prefixes)
    program = "ros2 run canet_ros canet" if in_workspace and not shutil.which("canet") else "canet"
    return f"{program} {arguments}"


def see_docs(page: str) -> str:
    """``see FILE`` for a page of docs/, given by its path there."""
    files = [folder / page for folder in share_folders("docs")]
    return f"see {next((str(file) for file in files if file.is_file()), f'docs/{page} of canet_ros')}"
