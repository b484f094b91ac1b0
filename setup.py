# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "canet_ros"
SHARE = f"share/{PACKAGE}"


def installed_files() -> list[tuple[str, list[str]]]:
    """Files that are installed beside the code: marker, manifest, launch files, configuration, models, docs."""
    files = [
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
    ]
    for folder in ("launch", "config", "models"):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                files.append((f"{SHARE}/{path.parent}", [str(path)]))
    # Hints and error messages refer to these pages.
    files += [(f"{SHARE}/{path.parent}", [str(path)]) for path in sorted(Path("docs").rglob("*.md"))]
    return files


setup(
    name=PACKAGE,
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: [
            "py.typed",
            "bags/*.html",
            "training/*.html",
            "classes/*.yaml",
            "demo/street/*.md",
            "demo/street/*/*",
        ]
    },
    data_files=installed_files(),
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.22",
        "opencv-python-headless>=4.5",
        "pyyaml>=5.4",
        "safetensors>=0.4",
        "tqdm>=4.57",
    ],
    extras_require={
        "openvino": ["onnx>=1.15", "openvino>=2024.4"],
        "onnxruntime": ["onnx>=1.15", "onnxruntime>=1.17"],
        "tensorrt": [
            "cuda-bindings>=12.3",
            "onnx>=1.15",
        ],  # TensorRT comes with JetPack, or as pip's tensorrt
        # The compiler, for tests: TensorRT for RTX builds engines without a GPU. Neither package requires the other.
        "tensorrt-check": [
            "cuda-bindings>=12.3",
            "onnx>=1.15",
            "tensorrt-rtx-cu12-bindings>=1.7; platform_machine == 'x86_64'",
            "tensorrt-rtx-cu12-libs>=1.7; platform_machine == 'x86_64'",
        ],
        "int8": ["nncf>=2.14", "onnx>=1.15"],
        "torch": ["torch>=2.3"],
        "training": ["matplotlib>=3.5", "onnx>=1.15", "torch>=2.3"],
        "bags": ["lz4>=4", "mcap>=1.6", "rosbags>=0.11.6", "zstandard>=0.21"],
        "video": ["av>=16"],
        "labels": ["pycocotools>=2.0.8"],
        "ray": ["ray>=2.9"],
        "remote": ["fsspec>=2023.1"],
        "kilted": [
            "ros-kilted-diagnostic-msgs",
            "ros-kilted-lifecycle-msgs",
            "ros-kilted-nav-msgs",
            "ros-kilted-rclpy",
            "ros-kilted-rmw-fastrtps-cpp",
            "ros-kilted-sensor-msgs",
            "ros-kilted-std-srvs",
        ],
        "jazzy": [
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-lifecycle-msgs",
            "ros-jazzy-nav-msgs",
            "ros-jazzy-rclpy",
            "ros-jazzy-rmw-fastrtps-cpp",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-srvs",
        ],
        "docs": ["furo", "myst-parser>=3", "sphinx>=7.3"],
        "test": [
            "argcomplete>=2",
            "catkin_pkg",
            "coverage>=7.10",
            "hypothesis>=6",
            "pytest>=7",
            "pytest-cov",
            "pytest-xdist>=3",
        ],
        "lint": ["codespell>=2.2.5", "import-linter>=2.1", "mypy", "ruff", "types-PyYAML", "types-tqdm"],
    },
    zip_safe=False,
    author="The canet_ros authors",
    maintainer="The canet_ros authors",
    maintainer_email="canet_ros@users.noreply.github.com",
    description="Semantic segmentation of camera topics with CANet",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "canet = canet_ros.cli:main",
            "segmentation_node = canet_ros.start:segmentation_node",
            "street_camera = canet_ros.start:street_camera",
        ],
    },
)
