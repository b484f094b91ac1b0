# SPDX-License-Identifier: Apache-2.0
"""Which known name a misspelt one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.6  # of the letters of both names


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like this one and not the name itself; empty where none is alike."""
    others = [other for other in known if other != name]
    return next(iter(difflib.get_close_matches(name, others, 1, _ALIKE)), "")


def with_guess(name: str, known: Iterable[str]) -> str:
    """The name, with the known name that it may be a misspelling of in brackets."""
    near = nearest(name, known)
    return f"{name} (did you mean {near}?)" if near else name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``: did you mean ...?`` for the end of a sentence; empty where nothing is alike."""
    near = nearest(name, known)
    return f": did you mean {near}?" if near else ""
