# SPDX-License-Identifier: Apache-2.0
"""Reads untrusted files with bounded memory and time. Nothing in them is executed."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

MAX_YAML_BYTES = 128 * 1024
MAX_YAML_VALUES = 20_000


def require_file(path: Path, max_bytes: int) -> int:
    """Size of a file in bytes; a link is followed.

    Raises:
        OSError: it does not exist.
        ValueError: it is a folder, a pipe or a device, or larger than ``max_bytes``.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"it has {status.st_size} bytes, expected at most {max_bytes}")
    return status.st_size


def read_yaml(path: Path) -> Any:
    """The values of a YAML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML, names a type, is too large, too deep, or expands to too many values by its aliases.
    """
    require_file(path, MAX_YAML_BYTES)
    try:
        text = path.read_text(encoding="utf-8")
        _count_values(yaml.compose(text, yaml.SafeLoader), {}, set())
        return yaml.safe_load(text)
    except OSError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context or 'no YAML'}") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (
        Exception
    ) as error:  # PyYAML throws whatever its constructors meet: KeyError, AttributeError, IndexError
        raise ValueError(f"no YAML: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _count_values(node: yaml.Node | None, known: dict[int, int], above: set[int]) -> int:
    """Number of values that a node expands to; an alias is the same node again."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in above:
        raise ValueError("an alias stands for what it is in")
    if id(node) not in known:
        above.add(id(node))
        children = node.value
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in children if isinstance(key, yaml.ScalarNode)]
            if doubled := {key for key in keys if keys.count(key) > 1} if len(keys) < 1000 else set():
                raise ValueError(f"line {node.start_mark.line + 1}: {min(doubled)!r} is there twice")
            children = [part for pair in children for part in pair]
        known[id(node)] = 1 + sum(_count_values(child, known, above) for child in children)
        above.remove(id(node))
    if known[id(node)] > MAX_YAML_VALUES:
        raise ValueError(f"it stands for more than {MAX_YAML_VALUES} values")
    return known[id(node)]
