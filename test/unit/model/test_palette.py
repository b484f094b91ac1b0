# SPDX-License-Identifier: Apache-2.0
"""The colours for colour-blind people, and the legend. Colour vision is simulated by another model than the palette's
own: Viénot, Brettel, Mollon, "Digital Video Colourmaps for Checking the Legibility of Displays by Dichromats", 1999.
"""

from __future__ import annotations

import numpy as np
import pytest

from canet_ros.model.class_table import ClassTable
from canet_ros.model.palette import cie_lab, recolored
from canet_ros.pipeline.visualization import draw_legend

_LMS_OF_RGB = np.array(
    [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
)
_WITHOUT_L = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
_WITHOUT_M = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.linalg.inv(_LMS_OF_RGB) @ _WITHOUT_L @ _LMS_OF_RGB,
    "deuteranopia": np.linalg.inv(_LMS_OF_RGB) @ _WITHOUT_M @ _LMS_OF_RGB,
}


def table_of(number: int) -> ClassTable:
    random = np.random.default_rng(number)
    colors = tuple(tuple(int(c) for c in color) for color in random.integers(0, 256, (number, 3)))
    return ClassTable(tuple(f"class {index}" for index in range(number)), colors)


def smallest_distance(classes: ClassTable, vision: str) -> float:
    lab = cie_lab(classes.colors_rgb, VISIONS[vision])
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return float(distances[np.triu_indices(len(classes), 1)].min())


# A distance of 2.3 is what can just be told apart side by side; CamVid's own colours come as near as 4.2.
@pytest.mark.parametrize(("number", "least"), [(11, 30.0), (19, 18.0), (40, 12.0), (255, 2.3)])
@pytest.mark.parametrize("vision", VISIONS)
def test_colors_differ_for_every_eye(number: int, least: float, vision: str) -> None:
    assert smallest_distance(recolored(table_of(number), "colorblind"), vision) >= least


@pytest.mark.parametrize(("size", "number"), [((640, 480), 11), ((1920, 1080), 19), ((320, 240), 40)])
def test_the_legend_shows_every_color_and_stays_in_its_corner(size: tuple[int, int], number: int) -> None:
    classes = recolored(table_of(number), "colorblind")
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    draw_legend(image, classes)
    for color in classes.colors_rgb:
        assert (image == color[::-1]).all(axis=2).any()
    assert (image[:, 2 * size[0] // 3 :] == 255).all()
