# SPDX-License-Identifier: Apache-2.0
"""``canet segment``: masks and overlays of images, folders and videos."""

from __future__ import annotations

import argparse
import glob
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from canet_ros.commands import add_force_argument, local_path
from canet_ros.commands.loading import add_model_arguments, load_segmenter
from canet_ros.commands.pipeline_arguments import add_pipeline_arguments, option_values
from canet_ros.files import require_new, require_writable, write_image
from canet_ros.formats import parse_groups
from canet_ros.hints import pip_install
from canet_ros.opencv import Pixels
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.image_files import (
    ImageSource,
    differences_from_file,
    distinct_names,
    find_files,
    is_video,
    open_images,
)
from canet_ros.pipeline.options import PipelineOptions
from canet_ros.pipeline.outputs import image_outputs
from canet_ros.pipeline.process import Frame, process
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.temporal_filter import TemporalFilter
from canet_ros.pipeline.video_file import AppendFrame, has_pyav, video_file

_DEFAULT_RATE_HZ = 25.0  # of videos that do not say theirs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=local_path,
        nargs="+",
        help="image (the first of several in one file), folder of images, or video",
    )
    parser.add_argument(
        "--out",
        type=local_path,
        required=True,
        help="folder for NAME_mask.png and NAME_overlay.jpg of images, NAME_overlay.mp4 of videos, and "
        "NAME_group_GROUP.png of groups; inputs of one name keep their suffix (1.png_mask.png) or folder "
        "(front/1_mask.png)",
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="write the mask of each frame of a video, too: NAME_000000_mask.png",
    )
    add_force_argument(parser)
    add_pipeline_arguments(parser, "each input; --steady applies to videos")
    add_model_arguments(parser, keep_aspect_ratio=True)


def run(arguments: argparse.Namespace) -> int:
    options = PipelineOptions(**option_values(arguments, PipelineOptions))
    transforms = {
        file: transform
        for path, transform in zip(arguments.input, options.camera_transforms(len(arguments.input)))
        for file in find_files(path)
    }
    names = distinct_names(list(transforms))
    if not arguments.force:
        _require_new_results(arguments.out, names)
    problems: list[str] = []
    inputs = {file: open_images(file, problems.append, name) for file, name in names.items()}
    require_writable(arguments.out / "mask.png")
    for sentence in differences_from_file(names):
        print(sentence, file=sys.stderr)
    if any(map(is_video, names)) and not has_pyav():
        print(f"videos are written as MPEG-4, not H.264: {pip_install('av')}", file=sys.stderr)
    segmenter = load_segmenter(arguments)
    results = _Results(arguments.out, arguments.masks, segmenter, options)
    start_s = first_s = time.monotonic()
    segmented = 0
    with tqdm(total=sum(opened.count for opened in inputs.values()), unit="image", disable=None) as bar:
        for file, opened in inputs.items():
            for _ in results.write(file, names[file], opened, transforms[file], problems.append):
                segmented += 1
                if segmented == 1:
                    first_s = time.monotonic()
                bar.update()
    if segmented:
        now_s, engine = time.monotonic(), segmenter.engine
        # The first frame may load the engine.
        rate = (segmented - 1) / (now_s - first_s) if segmented > 1 else 1 / (now_s - start_s)
        where = f"{engine.name} {engine.precision} on {engine.device}"
        print(f"{segmented} frames, {rate:.1f} frames/s, {where}: {arguments.out}")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{len(problems)} of {len(names)} could not be read: {'; '.join(problems[:3])}{more}"
        )
    return 0


class _Results:
    """Segments the frames of inputs and writes the results to a folder."""

    def __init__(self, out: Path, masks: bool, segmenter: Segmenter, options: PipelineOptions) -> None:
        self._out = out
        self._masks = masks
        self._segmenter = segmenter
        self._steady = options.steady
        self._options = options.process_options(segmenter.spec.classes)
        self._groups = tuple(parse_groups(options.groups))
        self._outputs = image_outputs(parse_groups(options.groups))
        self._printed: set[str] = set()

    def write(
        self,
        file: Path,
        name: str,
        opened: ImageSource,
        transform: CameraTransform,
        warn: Callable[[str], None],
    ) -> Iterator[None]:
        """Write the results of each frame of a file, and yield after each; ``warn`` gets what cannot be segmented."""
        rate_hz = opened.rate_hz or _DEFAULT_RATE_HZ
        temporal_filter = TemporalFilter() if self._steady and is_video(file) else None
        with ExitStack() as stack:
            append: AppendFrame | None = None
            for index, image in enumerate(opened.images):
                frame = Frame(image.image, round((index + 1) * 1e9 / rate_hz), transform, temporal_filter)
                try:
                    (drawing,) = process([frame], self._segmenter.infer, self._options)
                except ValueError as error:  # too small for the region
                    warn(f"{image.name}: {error}")
                    continue
                self._advise(transform.to_network(image.image))
                overlay = self._outputs["overlay"].render(drawing)
                if is_video(file):
                    append = append or stack.enter_context(
                        video_file(self._out / f"{name}_overlay.mp4", rate_hz)
                    )
                    append(overlay, index / rate_hz)
                else:
                    write_image(self._out / f"{image.name}_overlay.jpg", overlay)
                if self._masks or not is_video(file):
                    write_image(self._out / f"{image.name}_mask.png", drawing.segmentation.mask)
                for group in self._groups:
                    pixels = self._outputs[f"groups/{group}"].render(drawing)
                    write_image(self._out / f"{image.name}_group_{group}.png", pixels)
                yield

    def _advise(self, image: Pixels) -> None:
        advice = squeeze_warning(self._segmenter.resolution, (image.shape[1], image.shape[0]))
        if advice and advice not in self._printed:
            self._printed.add(advice)
            tqdm.write(advice, file=sys.stderr)


def _require_new_results(out: Path, names: Mapping[Path, str]) -> None:
    for file, name in names.items():
        name = glob.escape(name)
        images = f"{name}_{'[0-9]' * 6}" if is_video(file) else name
        for pattern in (f"{images}_mask.png", f"{images}_group_*.png", f"{name}_overlay.*"):
            require_new(*out.glob(pattern))
