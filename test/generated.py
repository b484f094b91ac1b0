# SPDX-License-Identifier: Apache-2.0
"""Files generated from the code: ``make generated`` writes them, test_package.py compares them."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from tables import command_parsers, described, with_tables

from canet_ros.launching.arguments import OWN_ARGUMENTS
from canet_ros.launching.parameter_spec import ParameterSpec
from canet_ros.launching.parameter_table import PARAMETERS, SECTIONS
from canet_ros.messages.results import MESSAGE_OUTPUTS
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import ModelSpec, save_model
from canet_ros.pipeline.outputs import IMAGE_OUTPUTS

ROOT = Path(__file__).resolve().parents[1]
_WIDTH = 119
_CONFIGURATION = """\
# SPDX-License-Identifier: Apache-2.0
# All parameters of the segmentation node with their defaults. Generated from canet_ros/launching/parameter_table.py by
# make generated. Copy this file, change what you need and leave out the rest:
#   ros2 launch canet_ros canet.launch.py params_file:=/path/to/my.yaml
# Launch arguments that are given override the file. An empty list means none.

# /** matches every node in every namespace; a full name such as /front/canet matches one node.
/**:
  ros__parameters:
"""


def configuration() -> str:
    """config/canet.yaml."""
    parts = [_CONFIGURATION]
    for heading, specs in SECTIONS.items():
        parts.append(f"\n{f'    # --- {heading} '.ljust(_WIDTH, '-')}\n")
        for spec in specs:
            text = f"{described(spec)}. {spec.details} {spec.when[0].upper()}{spec.when[1:]}."
            comment = textwrap.fill(
                " ".join(text.split()), _WIDTH, initial_indent="    # ", subsequent_indent="    # ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
            parts.append(f"\n{comment}\n    {spec.name}: {_yaml_value(spec)}\n")
    return "".join(parts)


def public_api() -> str:
    """docs/public_api.txt: what users depend on."""
    lines = [
        *_topics(),
        *(f"parameter {s.name} {type(s.default).__name__} {s.default_text!r}" for s in PARAMETERS),
        *(f"launch argument {argument.name} {argument.default!r}" for argument in OWN_ARGUMENTS),
        *_commands(),
        *_model_keys(),
    ]
    return "\n".join(sorted(lines)) + "\n"


_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED: dict[Path, Callable[[], str]] = {
    ROOT / "config" / "canet.yaml": configuration,
    ROOT / "docs" / "public_api.txt": public_api,
    **{page: partial(with_tables, page) for page in _PAGES if "<!-- table:" in page.read_text()},
}


def _yaml_value(spec: ParameterSpec) -> str:
    if isinstance(spec.default, str) and spec.default:
        return spec.default
    if spec.empty_means_none:
        return "[]"
    return json.dumps(list(spec.default) if isinstance(spec.default, tuple) else spec.default)


def _topics() -> list[str]:
    prefix = "<camera>/segmentation"
    lines = [
        f"topic {prefix}/{name} sensor_msgs/Image {output.encoding}" for name, output in IMAGE_OUTPUTS.items()
    ]
    lines += [
        f"topic {prefix}/{name}/compressed sensor_msgs/CompressedImage {output.codec}"
        for name, output in IMAGE_OUTPUTS.items()
        if output.codec
    ]
    lines += [
        f"topic {prefix}/{name} sensor_msgs/PointCloud2 x y z rgb label confidence"
        for name in ("points", "groups/<name>/points", "groups/<name>/points_outside")
    ]
    lines += [
        f"topic {prefix}/{name} {output.msgtype.replace('/msg', '')}"
        for name, output in MESSAGE_OUTPUTS.items()
    ]
    return [*lines, f"topic {prefix}/camera_info sensor_msgs/CameraInfo"]


def _commands() -> list[str]:
    return [
        f"command {parser.prog} {word}"
        for _, parser in command_parsers()
        for action in parser._actions
        for word in action.option_strings or [action.dest.upper()]
        if word not in ("-h", "--help")
    ]


def _model_keys() -> list[str]:
    spec = ModelSpec("any", load_class_table("camvid"), architecture="canet_lite", temperature=2.0)
    spec = replace(spec, hidden_channels={2: 48}, familiar={"mean": (0.0, 1.0)})
    with tempfile.TemporaryDirectory() as scratch:
        save_model(Path(scratch) / "model", spec, spec.build_network())
        return [
            f"model.yaml {key}"
            for key in yaml.safe_load((Path(scratch) / "model" / "model.yaml").read_text())
        ]


if __name__ == "__main__":
    for path, text in GENERATED.items():
        path.write_text(text())
