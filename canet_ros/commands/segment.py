# SPDX-License-Identifier: Apache-2.0
"""``canet segment``: masks and overlays of pictures, folders and videos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
from tqdm import tqdm

from canet_ros.inference import Segmenter
from canet_ros.inference.camera_shape import squeeze_warning
from canet_ros.inference.pictures import open_pictures
from canet_ros.inference.visualization import color_lookup_table, overlay
from canet_ros.names import ENGINES, PRECISIONS

DEFAULT_MODEL = "canet-mobilenet_v2-camvid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, nargs="+", help="picture, folder of pictures, or video")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for NAME_mask.png and NAME_overlay.jpg"
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"name or model folder (default: {DEFAULT_MODEL})"
    )
    parser.add_argument("--engine", default="auto", choices=("auto", *ENGINES))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument(
        "--resolution",
        default="",
        metavar="WxH",
        help="of the network's input; camera: in the pictures' shape",
    )
    parser.add_argument("--alpha", type=float, default=0.5, help="weight of the colours in the overlay, 0..1")


def run(arguments: argparse.Namespace) -> int:
    inputs = [open_pictures(path, lambda text: print(text, file=sys.stderr)) for path in arguments.input]
    segmenter = Segmenter.load(
        arguments.model, arguments.device, arguments.engine, arguments.precision, arguments.resolution
    )
    table = color_lookup_table(segmenter.spec.classes, "bgr")
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = 0
    advice: set[str] = set()
    with tqdm(total=sum(opened.count for opened in inputs), unit="picture") as bar:
        for opened in inputs:
            for picture in opened.pictures:
                mask = segmenter(picture.image).mask
                squeezed = squeeze_warning(segmenter.resolution, (mask.shape[1], mask.shape[0]))
                if squeezed and squeezed not in advice:
                    advice.add(squeezed)
                    tqdm.write(squeezed, file=sys.stderr)
                blended = overlay(picture.image, mask, table, arguments.alpha)
                cv2.imwrite(str(arguments.out / f"{picture.name}_mask.png"), mask)
                cv2.imwrite(str(arguments.out / f"{picture.name}_overlay.jpg"), blended)
                written += 1
                bar.update()
    if written == 0:
        raise ValueError("no picture could be read")
    print(f"{written} masks and overlays in {arguments.out}")
    return 0
