# SPDX-License-Identifier: Apache-2.0
"""Comparison of two benchmark runs by metrics that depend little on machine load: ratios within a run, and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CASE = ("model", "resolution", "batch", "engine", "precision", "device")


def regressions(figures: Mapping[str, Any], baseline: Mapping[str, Any], tolerance: float) -> dict[str, str]:
    """Metrics of the baseline that are missing or larger now, by name, with a description.

    Compared are each engine's time relative to plain PyTorch in fp32, the node's latency relative to the plain node's,
    and the node's memory.

    Args:
        figures, baseline: as written by ``canet benchmark --json``.
        tolerance: accepted increase, 0.15 for 15 %.

    Raises:
        ValueError: the baseline contains no metric that could be compared.
    """
    before, now = _metrics(baseline), _metrics(figures)
    if not before:
        raise ValueError("the baseline has no engine or node figures; write one with canet benchmark --json")
    worse = {}
    for name, old in before.items():
        new = now.get(name)
        if new is None:
            worse[name] = f"not measured; baseline {old:.3g}"
        elif new > old * (1 + tolerance):
            worse[name] = f"{new:.3g}, {new / old - 1:.0%} more than the baseline of {old:.3g}"
    return worse


def _metrics(figures: Mapping[str, Any]) -> dict[str, float]:
    metrics = {
        f"{', '.join(str(row[key]) for key in _CASE)}: time relative to plain PyTorch": float(
            row["over_plain"]
        )
        for row in figures.get("engines", ())
        if row.get("over_plain") is not None and row["engine"] != "plain PyTorch"
    }
    node = figures.get("node")
    if node:
        plain_ms = node.get("plain_node", {}).get("latency_ms", {}).get("median")
        if plain_ms:
            metrics["node: latency relative to the plain node"] = node["latency_ms"]["median"] / plain_ms
        metrics["node: memory, MB"] = float(node["memory_mb"])
    return metrics
