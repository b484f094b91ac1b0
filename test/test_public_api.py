# SPDX-License-Identifier: Apache-2.0
"""What users depend on is listed in docs/public_api.txt, and changes only together with the changelog.

``python test/test_public_api.py`` prints the list and the line for the changelog.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

import canet_ros
from canet_ros.cli import COMMANDS
from canet_ros.inference.class_table import load_class_table
from canet_ros.launching.arguments import OWN_ARGUMENTS, default_text
from canet_ros.launching.parameter_table import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "docs" / "public_api.txt"


def topics() -> list[str]:
    from canet_ros.ros.outputs import PICTURES

    prefix = "<camera>/segmentation"
    lines = [
        f"topic {prefix}/{name} sensor_msgs/Image {output.encoding}" for name, output in PICTURES.items()
    ]
    lines += [
        f"topic {prefix}/{name}/compressed sensor_msgs/CompressedImage {output.codec}"
        for name, output in PICTURES.items()
        if output.codec
    ]
    lines += [f"topic {prefix}/points sensor_msgs/PointCloud2 x y z rgb label confidence"]
    return [*lines, f"topic {prefix}/camera_info sensor_msgs/CameraInfo"]


def commands() -> list[str]:
    lines = []
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        module = importlib.import_module(f"canet_ros.commands.{name.replace('-', '_')}")
        module.add_arguments(parser)
        for action in parser._actions:
            words = action.option_strings or [action.dest.upper()]
            lines += [f"command canet {name} {word}" for word in words if word not in ("-h", "--help")]
    return lines


def model_keys(folder: Path) -> list[str]:
    import yaml

    from canet_ros.inference.model_folder import ModelSpec, save_model

    spec = ModelSpec("any", load_class_table("camvid"), architecture="canet_lite", temperature=2.0)
    spec = replace(spec, hidden_channels={2: 48}, familiar={"mean": (0.0, 1.0)})
    save_model(folder, spec, spec.build_network())
    return [f"model.yaml {key}" for key in yaml.safe_load((folder / "model.yaml").read_text())]


def public_api(folder: Path) -> str:
    inference = importlib.import_module("canet_ros.inference")
    lines = [
        *topics(),
        *(
            f"parameter {spec.name} {type(spec.default).__name__} {default_text(spec)!r}"
            for spec in PARAMETERS
        ),
        *(f"launch argument {argument.name} {argument.default!r}" for argument in OWN_ARGUMENTS),
        *commands(),
        *model_keys(folder),
        *(f"python canet_ros.inference.{name}" for name in inference.__all__),
    ]
    return "\n".join(sorted(lines)) + "\n"


def line_of_changelog(listed: str) -> str:
    return f"Public API: {hashlib.sha256(listed.encode()).hexdigest()[:12]}"


def test_public_api_is_as_listed(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    assert public_api(tmp_path / "model") == LIST.read_text(), (
        "python test/test_public_api.py > docs/public_api.txt"
    )


def test_changelog_knows_the_public_api() -> None:
    newest = re.findall(r"^\* (Public API: .*)$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)[0]
    line = line_of_changelog(LIST.read_text())
    assert newest == line, (
        f"say under Forthcoming in CHANGELOG.rst what changed for users, and end that entry with '* {line}'"
    )


def test_changelog_reads_as_one_of_ros() -> None:
    changelog = pytest.importorskip("catkin_pkg.changelog")
    versions = [
        version
        for version, _, _ in changelog.get_changelog_from_path(
            str(ROOT / "CHANGELOG.rst"), "canet_ros"
        ).foreach_version()
    ]
    assert canet_ros.__version__ in versions


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(public_api(Path(scratch) / "model"), end="")
