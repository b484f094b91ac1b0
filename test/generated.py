# SPDX-License-Identifier: Apache-2.0
"""Files that say again what the code says: ``make generated`` writes them, test_package.py compares them."""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import yaml

from canet_ros.cli import COMMANDS
from canet_ros.inference.class_table import load_class_table
from canet_ros.inference.model_folder import ModelSpec, save_model
from canet_ros.launching.arguments import OWN_ARGUMENTS
from canet_ros.launching.parameter_spec import ParameterSpec
from canet_ros.launching.parameter_table import PARAMETERS, SECTIONS
from canet_ros.messages.pictures import IMAGE_OUTPUTS

ROOT = Path(__file__).resolve().parents[1]
_WIDTH = 119
_CONFIGURATION = """\
# SPDX-License-Identifier: Apache-2.0
# Every parameter of the segmentation node, at its default; written by make generated from
# canet_ros/launching/parameter_table.py. Copy the file, change what you need, leave out the rest:
#   ros2 launch canet_ros canet.launch.py params_file:=/path/to/my.yaml
# Arguments that are given on the command line win over the file. An empty list means none.

# /** is every node in every namespace; to mean one node, write its full name: /front/canet.
/**:
  ros__parameters:
"""
_PAGE = """\
# Parameters

Launch arguments of the same names exist for all of them; [config/canet.yaml](../config/canet.yaml) explains each.
*Live* ones change at any time, the others while the node is inactive: `ros2 lifecycle set /canet deactivate`, set,
`activate`. Changing `image_topics` or `image_transport` also takes `cleanup` and `configure`. An empty list means none:
`regions: []` is `regions: [""]`. This page is written by `make generated`.

| Parameter | Default | Live | What |
| --- | --- | --- | --- |
{rows}

Read-only: `class_names` and `class_colors` of the model in use, and `available_models`, which `model` can name.
QoS can be overridden for every topic (`qos_overrides`).
"""


def configuration() -> str:
    """config/canet.yaml."""
    parts = [_CONFIGURATION]
    for heading, specs in SECTIONS.items():
        parts.append(f"\n{f'    # --- {heading} '.ljust(_WIDTH, '-')}\n")
        for spec in specs:
            text = f"{_described(spec)}. {spec.details} {spec.when[0].upper()}{spec.when[1:]}."
            comment = textwrap.fill(
                " ".join(text.split()), _WIDTH, initial_indent="    # ", subsequent_indent="    # ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
            parts.append(f"\n{comment}\n    {spec.name}: {_yaml_value(spec)}\n")
    return "".join(parts)


def parameters_page() -> str:
    """docs/parameters.md."""
    rows = [
        f"| `{spec.name}` | `{spec.default_text or _EMPTY}` | {'yes' if spec.live else ''} | {_described(spec)} |"
        for spec in PARAMETERS
    ]
    return _PAGE.format(rows="\n".join(rows))


def public_api() -> str:
    """docs/public_api.txt: what users depend on."""
    inference = importlib.import_module("canet_ros.inference")
    lines = [
        *_topics(),
        *(f"parameter {s.name} {type(s.default).__name__} {s.default_text!r}" for s in PARAMETERS),
        *(f"launch argument {argument.name} {argument.default!r}" for argument in OWN_ARGUMENTS),
        *_commands(),
        *_model_keys(),
        *(f"python canet_ros.inference.{name}" for name in inference.__all__),
    ]
    return "\n".join(sorted(lines)) + "\n"


GENERATED = {
    ROOT / "config" / "canet.yaml": configuration,
    ROOT / "docs" / "parameters.md": parameters_page,
    ROOT / "docs" / "public_api.txt": public_api,
}
_EMPTY = '""'


def _described(spec: ParameterSpec) -> str:
    text = spec.description
    if spec.choices:
        text += f": {', '.join(spec.choices)}"
    return f"{text} ({spec.bounds})" if spec.bounds else text


def _yaml_value(spec: ParameterSpec) -> str:
    if isinstance(spec.default, str) and spec.default:
        return spec.default
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
    lines += [f"topic {prefix}/points sensor_msgs/PointCloud2 x y z rgb label confidence"]
    return [*lines, f"topic {prefix}/camera_info sensor_msgs/CameraInfo"]


def _commands() -> list[str]:
    lines = []
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        module = importlib.import_module(f"canet_ros.commands.{name.replace('-', '_')}")
        module.add_arguments(parser)
        for action in parser._actions:
            words = action.option_strings or [action.dest.upper()]
            lines += [f"command canet {name} {word}" for word in words if word not in ("-h", "--help")]
    return lines


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
