# SPDX-License-Identifier: Apache-2.0
"""Parameter files: the values that rcl applies to a node, and mistakes that rcl does not report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml


def parameters_in_file(text: str, node: str) -> dict[str, Any]:
    """Parameters of a node in a parameter file, as rcl applies them.

    Args:
        text: YAML as in ``--params-file``: node names, nested or not, over ``ros__parameters``; ``*`` stands for one
            part of a name, ``**`` for any number of parts.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is not a parameter file.
    """
    found: dict[str, Any] = {}
    for name, parameters in _sections_of_file(text):
        if _name_pattern(name).fullmatch(node):
            found.update(parameters)
    return found


def section_problem(text: str, node: str) -> str:
    """Message if no section of a parameter file applies to a node; empty: one does.

    Args:
        text: as for ``parameters_in_file``.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is not a parameter file.
    """
    names = [name for name, _ in _sections_of_file(text)]
    if any(_name_pattern(name).fullmatch(node) for name in names):
        return ""
    return (
        f"no section applies to {node}, so the file has no effect; its sections are "
        f"{', '.join(names) or 'none'}: did you mean {node} (or /** for every node)?"
    )


def read_parameter_file(path: Path) -> str:
    """Read a parameter file.

    Raises:
        ValueError: the file is unreadable, or not UTF-8.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(error.strerror) from error


def parameter_files(arguments: Sequence[str]) -> list[Path]:
    """Parameter files among the arguments of a node."""
    return [Path(file) for option, file in pairwise(arguments) if option == "--params-file"]


def _sections_of_file(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        return _sections(yaml.safe_load(text), "")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error


def _sections(tree: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(tree, dict):
        raise ValueError("expected node names with ros__parameters below them, as in config/canet.yaml")
    found: list[tuple[str, dict[str, Any]]] = []
    for key, subtree in tree.items():
        if key == "ros__parameters":
            if subtree is not None and not isinstance(subtree, dict):
                raise ValueError(f"expected parameters under {name}/ros__parameters, got {subtree!r}")
            found.append((name or "/", subtree or {}))
        else:
            found.extend(_sections(subtree, f"{name}/{str(key).strip('/')}"))
    return found


def _name_pattern(name: str) -> re.Pattern[str]:
    parts = {"**": r"(/[^/]+)*", "*": r"/[^/]+"}
    return re.compile("".join(parts.get(part, "/" + re.escape(part)) for part in name.strip("/").split("/")))
