# SPDX-License-Identifier: Apache-2.0
"""Images of the model cards, from the given photographs: python docs/data/examples.py IMAGE..."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from canet_ros import Segmenter

WIDTH, HEIGHT, LEGEND_HEIGHT = 480, 270, 24
MODELS = (
    "canet-mobilenet_v2-camvid",
    "canet_lite-mobilenet_v2-camvid",
    "canet_lite-efficientvit_b0-camvid",
)

for model in MODELS:
    segmenter = Segmenter.load(model, resolution="camera")
    rows = []
    for name in sys.argv[1:]:
        image = cv2.imread(name)
        overlay = segmenter(image).overlay(image, alpha=0.5)
        pair = [cv2.resize(half, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for half in (image, overlay)]
        rows.append(np.hstack(pair))
    legend = np.full((LEGEND_HEIGHT, 2 * WIDTH, 3), 255, np.uint8)
    classes = segmenter.spec.classes
    for i, (label, rgb) in enumerate(zip(classes.names, classes.colors)):
        x = i * 2 * WIDTH // len(classes)
        cv2.rectangle(legend, (x + 4, 7), (x + 14, 17), tuple(int(c) for c in rgb[::-1]), cv2.FILLED)
        cv2.putText(legend, label, (x + 18, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    path = Path(__file__).parents[1] / "images" / f"{model}.jpg"
    cv2.imwrite(str(path), np.vstack([*rows, legend]), [cv2.IMWRITE_JPEG_QUALITY, 80])
