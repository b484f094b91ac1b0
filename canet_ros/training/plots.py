# SPDX-License-Identifier: Apache-2.0
"""Plots of an evaluation, drawn with Matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from canet_ros.files import atomic_write
from canet_ros.training.calibration import BINS, Reliability


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)


def plot_reliability(measured: Reliability, title: str, path: Path) -> None:
    """Accuracy over confidence with the diagonal of perfect calibration; opaque bars have more pixels."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for confidence, accuracy, share in measured.bins():
        left = min(int(confidence * BINS), BINS - 1) / BINS
        axes.bar(
            left, accuracy, 1 / BINS, align="edge", color="tab:blue", edgecolor="k", alpha=0.15 + 0.85 * share
        )
    axes.plot([0, 1], [0, 1], color="black", linewidth=1)
    error = f"expected calibration error {measured.calibration_error:.3f}"
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title=f"{title}: {error}")
    _save(figure, path)


def plot_confusion(confusion: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """The confusion matrix (classes, classes) in percent of the pixels of each labelled class."""
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(3 + 0.5 * len(names),) * 2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="labelled class")
    for (row, column), value in np.ndenumerate(percent):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="k" if value > 60 else "w")
    _save(figure, path)
