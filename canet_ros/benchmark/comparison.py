# SPDX-License-Identifier: Apache-2.0
"""Figures against those of before, by what the load of a machine leaves alone: ratios within a run, and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CASE = ("model", "resolution", "batch", "engine", "precision", "device")


def regressions(figures: Mapping[str, Any], reference: Mapping[str, Any], tolerance: float) -> list[str]:
    """What is slower or larger than in the reference, or is missing, a sentence each.

    Compared are each engine's time over that of plain PyTorch in fp32 in the same run, the node's latency over that of
    the plain node, and the node's memory. What the reference does not hold is not looked at.

    Args:
        figures, reference: what ``canet benchmark --json`` writes.
        tolerance: how much more may be, 0.15 for 15 %.

    Raises:
        ValueError: the reference holds nothing that could be compared.
    """
    known, found = _comparable(reference), _comparable(figures)
    if not known:
        raise ValueError(
            "the reference holds no figures of engines or of the node: canet benchmark --json makes one"
        )
    problems = []
    for name, before in known.items():
        now = found.get(name)
        if now is None:
            problems.append(f"{name}: not measured; {before:.3g} in the reference")
        elif now > before * (1 + tolerance):
            problems.append(
                f"{name}: {now:.3g}, {now / before - 1:.0%} more than the {before:.3g} of the reference"
            )
    return problems


def _comparable(figures: Mapping[str, Any]) -> dict[str, float]:
    values = {
        f"{', '.join(str(row[key]) for key in _CASE)}: time over plain PyTorch": float(row["over_plain"])
        for row in figures.get("engines", ())
        if row.get("over_plain") is not None and row["engine"] != "plain PyTorch"
    }
    node = figures.get("node")
    if node:
        plain_ms = node.get("plain_node", {}).get("latency_ms", {}).get("median")
        if plain_ms:
            values["node: latency over the plain node's"] = node["latency_ms"]["median"] / plain_ms
        values["node: memory, MB"] = float(node["memory_mb"])
    return values
