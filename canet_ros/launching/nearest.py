# SPDX-License-Identifier: Apache-2.0
"""Suggests known names for misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MIN_SIMILARITY = 0.6  # difflib ratio


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar other known name; empty: none is similar."""
    others = [other for other in known if other != name]
    return next(iter(difflib.get_close_matches(name, others, 1, _MIN_SIMILARITY)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``: did you mean ...?`` for the end of a sentence; empty: none is similar."""
    near = nearest(name, known)
    return f": did you mean {near}?" if near else ""
