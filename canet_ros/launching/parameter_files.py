# SPDX-License-Identifier: Apache-2.0
"""Parameter files as rcl applies them: what they hold for a node, and why they may not do what they say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

# A parameter file of a whole robot has a tenth of it.
MAX_FILE_BYTES = 256 * 1024


def parameters_in_file(text: str, node: str) -> dict[str, Any]:
    """Parameters that a parameter file holds for a node, as rcl applies them.

    Args:
        text: YAML as in ``--params-file``: node names, nested or not, over ``ros__parameters``; ``*`` stands for one
            part of a name, ``**`` for any number of parts.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is not such a file.
    """
    found: dict[str, Any] = {}
    for name, parameters in _sections_of_file(text):
        if _name_pattern(name).fullmatch(node):
            found.update(parameters)
    return found


def file_problems(text: str, node: str) -> list[str]:
    """Why a parameter file may not do what it says, whatever its parameters are called, a sentence each.

    Args:
        text: as for ``parameters_in_file``.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is no parameter file.
    """
    names = [name for name, _ in _sections_of_file(text)]
    problems = list(_doubled(yaml.compose(text, yaml.SafeLoader)))
    if not any(_name_pattern(name).fullmatch(node) for name in names):
        problems.append(
            f"no section is for {node}, so that nothing in the file counts; its sections are "
            f"{', '.join(names) or 'none'}: did you mean {node} (or /** for every node)?"
        )
    return problems


def read_parameter_file(path: Path) -> str:
    """The text of a parameter file.

    Raises:
        ValueError: it cannot be read, is too large, or is no text.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise ValueError(f"it has {size_bytes} bytes, {MAX_FILE_BYTES} are the most for parameters")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(error.strerror) from error


def parameter_files(words: Sequence[str]) -> list[Path]:
    """The parameter files among a node's arguments."""
    return [Path(file) for option, file in itertools.pairwise(words) if option == "--params-file"]


def _sections_of_file(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("ROS takes no YAML with aliases (*name): write out what they stand for")
        return _sections(yaml.safe_load(text), "")
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _doubled(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, value in node.value:
            if key.value in seen:
                yield f"line {key.start_mark.line + 1}: {key.value} is there a second time: give it once"
            seen.add(key.value)
            yield from _doubled(value)


def _sections(tree: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(tree, dict):
        raise ValueError("expected node names over ros__parameters, as in config/canet.yaml")
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
