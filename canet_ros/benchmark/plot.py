# SPDX-License-Identifier: Apache-2.0
"""Bar chart of the results of ``canet benchmark``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from canet_ros.files import atomic_write


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Write milliseconds per image: of each engine, or of the node's stages and of the plain node."""
    if "engines" in figures:
        rows = [row for row in figures["engines"] if "error" not in row]
        labels = [
            f"{row['model']}\n{row['engine']} {row['precision']}, {row['resolution']}, batch {row['batch']}"
            for row in rows
        ]
        bars = [{"": row["median_ms"] / row["batch"]} for row in rows]
    else:
        node = figures["node"]
        labels = ["segmentation_node", "plain rclpy node"]
        bars = [node["stages_ms"], {"": node["plain_node"]["latency_ms"]["median"]}]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.55 * len(labels)))
    colors: dict[str, str] = {}
    for y, parts in enumerate(bars):
        left = 0.0
        for name, width in parts.items():
            label = None if name in colors else name
            color = colors.setdefault(name, f"C{len(colors)}")
            axes.barh(y, width, left=left, color=color, label=label)
            left += width
        axes.text(left, y, f" {left:.0f}", va="center")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("ms per image (median)")
    axes.set_title(f"{figures['machine']['processor']}, {figures['machine']['cores']} cores")
    if len(colors) > 1:
        axes.legend(fontsize=8)
    figure.tight_layout()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
