# SPDX-License-Identifier: Apache-2.0
"""Class colours that colour-blind people can distinguish."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from canet_ros.model.class_table import ClassTable
from canet_ros.names import PALETTES

# Linear RGB as seen without long-wave (protanopia) and without medium-wave cones (deuteranopia), at full severity:
# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009.
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
_XYZ_OF_SRGB = np.array(  # IEC 61966-2-1, D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_STEPS = 16  # per channel of the colours to choose from


def recolored(classes: ClassTable, palette: str) -> ClassTable:
    """The same classes in the colours of a palette.

    Args:
        palette: ``dataset`` keeps the colours; ``colorblind`` gives colours that differ as far as possible for people
            with normal sight, protanopia and deuteranopia alike, each as near as can be to the class's own.

    Raises:
        ValueError: no such palette exists.
    """
    if palette not in PALETTES:
        raise ValueError(f"unknown palette {palette!r}: choose one of {', '.join(PALETTES)}")
    if palette == "dataset":
        return classes
    own = cie_lab(classes.colors_rgb)
    free = _distinct_colors(len(classes))
    colors: dict[int, tuple[int, int, int]] = {}
    distances = np.linalg.norm(own[:, None] - cie_lab(free)[None], axis=2)
    for _ in range(len(classes)):
        index, color = np.unravel_index(np.argmin(distances), distances.shape)
        red, green, blue = (int(value) for value in free[color])
        colors[int(index)] = (red, green, blue)
        distances[index], distances[:, color] = np.inf, np.inf
    return ClassTable(classes.names, tuple(colors[index] for index in range(len(classes))))


@functools.lru_cache(maxsize=8)
def _distinct_colors(number: int) -> NDArray[np.uint8]:
    """Greedily, each next colour the one that is furthest from those before for the eye that sees it worst."""
    axis = np.linspace(0, 255, _STEPS).astype(np.uint8)
    candidates = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    views = np.stack([cie_lab(candidates, vision) for vision in (None, PROTANOPIA, DEUTERANOPIA)])
    chosen = [0]  # black, from which every other keeps away
    nearest = np.full(len(candidates), np.inf)
    for _ in range(number):
        distances = np.linalg.norm(views - views[:, chosen[-1]][:, None], axis=2).min(axis=0)
        nearest = np.minimum(nearest, distances)
        chosen.append(int(nearest.argmax()))
    return candidates[chosen[1:]]


def cie_lab(colors: NDArray[np.uint8], vision: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """CIE L*a*b* (n, 3) of sRGB colours (n, 3) uint8, seen through ``vision``, a (3, 3) matrix over linear RGB."""
    encoded = colors / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    if vision is not None:
        linear = np.clip(linear @ vision.T, 0, 1)
    ratio = (linear @ _XYZ_OF_SRGB.T) / _XYZ_OF_SRGB.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lab: NDArray[np.float64] = np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )
    return lab
