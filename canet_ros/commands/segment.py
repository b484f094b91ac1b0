# SPDX-License-Identifier: Apache-2.0
"""``canet segment``: masks and overlays of images, folders and videos."""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from canet_ros.commands import add_force_argument, argument
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.files import require_new, require_writable, write_image
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.image_files import (
    differences_from_file,
    distinct_names,
    find_files,
    is_video,
    open_pictures,
)
from canet_ros.pipeline.visualization import color_lookup_table, overlay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=Path,
        nargs="+",
        help="image (the first of several in one file), folder of images, or video",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for NAME_mask.png and NAME_overlay.jpg; inputs with the same "
        "name keep their suffix (1.png_mask.png) or folder (front/1_mask.png)",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--alpha", type=argument(_parse_alpha), default=0.5, help="weight of the colours in the overlay, 0..1"
    )
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    names = distinct_names([file for path in arguments.input for file in find_files(path)])
    if not arguments.force:
        _require_new_results(arguments.out, names)
    problems: list[str] = []
    inputs = [open_pictures(file, problems.append, name) for file, name in names.items()]
    require_writable(arguments.out / "mask.png")
    for sentence in differences_from_file(names):
        print(sentence, file=sys.stderr)
    segmenter = load_segmenter(arguments)
    table = color_lookup_table(segmenter.spec.classes, "bgr")
    written = 0
    printed: set[str] = set()
    with tqdm(total=sum(opened.count for opened in inputs), unit="image", disable=None) as bar:
        for opened in inputs:
            for named in opened.pictures:
                mask = segmenter(named.image).mask
                warning = squeeze_warning(segmenter.resolution, (mask.shape[1], mask.shape[0]))
                if warning and warning not in printed:
                    printed.add(warning)
                    tqdm.write(warning, file=sys.stderr)
                blended = overlay(named.image, mask, table, arguments.alpha)
                write_image(arguments.out / f"{named.name}_mask.png", mask)
                write_image(arguments.out / f"{named.name}_overlay.jpg", blended)
                written += 1
                bar.update()
    print(f"{written} masks and overlays in {arguments.out}")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{len(problems)} of {len(names)} could not be read: {'; '.join(problems[:3])}{more}"
        )
    return 0


def _require_new_results(out: Path, names: Mapping[Path, str]) -> None:
    for file, name in names.items():
        frames = f"{glob.escape(name)}_{'[0-9]' * 6}*" if is_video(file) else glob.escape(name)
        require_new(*out.glob(f"{frames}_mask.png"), *out.glob(f"{frames}_overlay.jpg"))


def _parse_alpha(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text}: expected 0 to 1")
    return value
