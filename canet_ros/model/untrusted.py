# SPDX-License-Identifier: Apache-2.0
"""Reads untrusted files with bounded memory and time. Nothing in them is executed."""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

MAX_YAML_BYTES = 128 * 1024


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


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which stand for any number of values, and keys that are there twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not taken here", problem_mark=mark)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if doubled := [key for key, count in keys.items() if count > 1]:
            raise yaml.MarkedYAMLError(problem=f"{doubled[0]!r} occurs twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The values of a YAML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML, names a type, has an alias, is too large or too deep.
    """
    require_file(path, MAX_YAML_BYTES)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context or 'no YAML'}") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except (
        Exception
    ) as error:  # PyYAML throws whatever its constructors meet: KeyError, AttributeError, IndexError
        raise ValueError(f"not YAML: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
