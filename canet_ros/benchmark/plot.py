# SPDX-License-Identifier: Apache-2.0
"""The figures of ``canet benchmark`` as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from canet_ros.files import atomic_write


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Milliseconds as bars: of the engines per picture, or of the node's stages and of the plain node."""
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
    colors: dict[str, Any] = {}
    for y, parts in enumerate(bars):
        left = 0.0
        for name, width in parts.items():
            if name not in colors:
                colors[name] = pyplot.get_cmap("tab10")(len(colors) % 10)
            axes.barh(y, width, left=left, color=colors[name])
            left += width
        axes.text(left, y, f" {left:.0f}", va="center")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("ms per picture (median)")
    axes.set_title(f"{figures['machine']['processor']}, {figures['machine']['cores']} cores")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=color) for name, color in colors.items() if name]
    if handles:
        axes.legend(handles, [name for name in colors if name], fontsize=8)
    figure.tight_layout()
    with atomic_write(path) as new:
        figure.savefig(new, dpi=120)
    pyplot.close(figure)
