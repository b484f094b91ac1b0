# SPDX-License-Identifier: Apache-2.0
"""Arguments that are parameters of the node: same names, ranges and meaning, from the one table of parameters."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from canet_ros.commands import OptionError
from canet_ros.launching.parameter_spec import ParameterSpec
from canet_ros.launching.parameter_table import PARAMETERS
from canet_ros.pipeline.options import PipelineOptions

_SPECS = {spec.name: spec for spec in PARAMETERS}
_OPTIONS = {"overlay_alpha": "--alpha"}


def add_pipeline_arguments(parser: argparse.ArgumentParser, camera: str) -> None:
    """Add the options of ``PipelineOptions``.

    Args:
        camera: what lists have an entry for, such as ``each of --topics``.
    """
    group = parser.add_argument_group(
        "pipeline",
        f"The node's parameters of these names; regions, rotations and ignore masks have an entry for {camera}.",
    )
    add_parameter_arguments(group, [field.name for field in fields(PipelineOptions)])


def add_parameter_arguments(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    for name in names:
        spec = _SPECS[name]
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        text = spec.description.replace("%", "%%")
        if isinstance(spec.default, bool):
            parser.add_argument(option, dest=name, action="store_true", help=text)
        elif isinstance(spec.default, tuple):
            entry = functools.partial(_parsed, option, functools.partial(_entry, spec))
            parser.add_argument(
                option, dest=name, nargs="+", default=(), type=entry, metavar="ENTRY", help=text
            )
        else:
            parser.add_argument(
                option,
                dest=name,
                default=spec.default,
                type=str if spec.choices else functools.partial(_parsed, option, spec.parse),
                metavar=None if spec.choices else spec.name.rpartition("_")[2].upper(),
                choices=spec.choices or None,
                help=f"{text} (default: {spec.default_text or 'none'})",
            )


def _parsed(option: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise OptionError(f"{option}: {error}") from error


def _entry(spec: ParameterSpec, text: str) -> Any:
    value = spec.check([text]) if isinstance(spec.default[0], str) else spec.parse(f"[{text}]")  # type: ignore[index]
    return value[0]  # type: ignore[index]


def option_values(arguments: argparse.Namespace, options: type[PipelineOptions]) -> dict[str, Any]:
    """Values of the arguments that are named as the fields of ``options``, lists as tuples."""
    values = {field.name: getattr(arguments, field.name) for field in fields(options)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
