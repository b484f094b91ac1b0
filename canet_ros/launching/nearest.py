# SPDX-License-Identifier: Apache-2.0
"""Which known name a misspelt one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Of the letters of both names: 0.6 offers a guess to somebody who asked, 0.8 is a slip of the finger.
GUESS = 0.6
SLIP = 0.8


def nearest(name: str, known: Iterable[str], likeness: float = GUESS) -> str:
    """The known name most like this one; empty where none is as alike as that, 0 to 1."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, likeness)), "")


def with_guess(name: str, known: Iterable[str]) -> str:
    """The name, with the known name that it may be a misspelling of in brackets."""
    near = nearest(name, known)
    return f"{name} (did you mean {near}?)" if near else name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``: did you mean ...?`` for the end of a sentence; empty where nothing is alike."""
    near = nearest(name, known)
    return f": did you mean {near}?" if near else ""
