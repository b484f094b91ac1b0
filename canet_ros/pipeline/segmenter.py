# SPDX-License-Identifier: Apache-2.0
"""Images of any size in, masks of the same size out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from canet_ros.engines import Engine, EngineRequest, create_engine
from canet_ros.engines.engine import is_out_of_memory, require_result
from canet_ros.errors import EngineError, in_one_line
from canet_ros.model.class_table import UNLABELLED
from canet_ros.model.model_folder import (
    ModelSpec,
    Resolution,
    find_model,
    graph_hash,
    load_spec,
    parse_resolution,
)
from canet_ros.opencv import bring_to_size, read_image, require_array
from canet_ros.pipeline.camera_shape import CAMERA
from canet_ros.pipeline.segmentation import Segmentation

ImageOrPath = NDArray[np.uint8] | str | os.PathLike[str]


class Segmenter:
    """A model on an engine, ready to run.

    The image is brought to the network's resolution on the host: fewer bytes cross to a GPU, and every engine sees
    the same pixels.
    """

    def __init__(
        self, spec: ModelSpec, engine: Engine, resolution: Resolution, folder: Path, graph_hash: str
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.resolution = resolution
        self.folder = folder
        self.graph_hash = graph_hash

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        resolution: str | Resolution | None = None,
        max_batch: int = 1,
        streams: int = 0,
    ) -> Segmenter:
        """Load a model by name or folder, and warm it up.

        Args:
            model: name under models/, or a path to a model folder.
            device: auto, cpu, cuda or cuda:N.
            engine: auto or one of ``names.ENGINES``.
            precision: auto or one of ``names.PRECISIONS``.
            resolution: (width, height) or "WIDTHxHEIGHT" of the network's input; None or "" for the model's own;
                "camera" for the shape of the first image, at which the engine is made then.
            max_batch: how many images a call will hold at most, for engines that prepare for each number (GPUs).
            streams: see ``EngineRequest``; as many threads as ``engine.streams`` says may then call at once.

        Raises:
            ModelError: the model is missing or broken.
            EngineError: engine, device or precision is not available here.
            ValueError: the resolution is not one.
        """
        folder = find_model(model)
        spec, hash_before = load_spec(folder), graph_hash(folder)
        request = EngineRequest(folder, spec.resolution, engine, device, precision, max_batch, streams)

        def build(size: Resolution) -> Engine:
            return create_engine(replace(request, resolution=size))

        if resolution == CAMERA:
            from canet_ros.pipeline.camera_segmenter import CameraShapedSegmenter

            spec.require_free_size()
            return CameraShapedSegmenter(spec, build, folder, hash_before)
        if isinstance(resolution, str):
            resolution = parse_resolution(resolution) if resolution else None
        size = resolution or spec.resolution
        return cls(spec, build(size), size, folder, hash_before)

    def is_current(self) -> bool:
        """Whether the model's folder still holds what was loaded; retraining in place changes it.

        Raises:
            ModelError: what it holds now is broken.
        """
        return load_spec(self.folder) == self.spec and graph_hash(self.folder) == self.graph_hash

    @property
    def resolution_text(self) -> str:
        """For people: ``480x360``."""
        return f"{self.resolution[0]}x{self.resolution[1]}"

    def begin(self) -> None:
        """Forget the shape of the cameras so far."""

    def shape_problem(self, image: NDArray[np.uint8]) -> str:
        """Why an image cannot be segmented together with those so far; empty: it can."""
        return ""

    def __repr__(self) -> str:
        engine = self.engine
        return (
            f"<Segmenter {self.spec.name}: {self.resolution_text}, {engine.name} {engine.precision} on "
            f"{engine.device}>"
        )

    @overload
    def __call__(self, image: ImageOrPath) -> Segmentation: ...

    @overload
    def __call__(self, image: list[ImageOrPath] | tuple[ImageOrPath, ...]) -> list[Segmentation]: ...

    @overload
    def __call__(self, image: Iterator[ImageOrPath]) -> Iterator[Segmentation]: ...

    def __call__(
        self, image: ImageOrPath | list[ImageOrPath] | tuple[ImageOrPath, ...] | Iterator[ImageOrPath]
    ) -> Segmentation | list[Segmentation] | Iterator[Segmentation]:
        """Segment an image, a batch, or a sequence of frames; results have the size of their image.

        Args:
            image: (H, W, 3) BGR or (H, W) grey, uint8, or the path of an image file; a list or tuple of these, which
                is one batch; or an iterator of these, whose results are yielded one by one.

        Raises:
            TypeError: an image is neither an array nor a path.
            ValueError: an array has another shape or type, or a file cannot be decoded (``ImageError``).
            OSError: a file cannot be read.
            EngineError: as ``infer``.
        """
        if isinstance(image, (list, tuple)):
            return self.segment_batch([_array(each) for each in image])
        if isinstance(image, Iterator):
            return (self(each) for each in image)
        return self.segment_batch([_array(image)])[0]

    def segment_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of any sizes at once; results have the size of their image. Raises as ``infer``."""
        return [
            found.resized((image.shape[1], image.shape[0]))
            for found, image in zip(self.infer(images), images)
        ]

    def infer(self, images: Sequence[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of any sizes at once; results have the network's resolution (see ``resized``).

        Raises:
            TypeError: an image is not an array.
            ValueError: an array is not (H, W, 3) or (H, W) uint8 with at least one pixel.
            EngineError: the engine fails, or returns an invalid result; the message names it.
        """
        width, height = self.resolution
        batch = np.empty((len(images), height, width, 3), np.uint8)
        for image, place in zip(images, batch):
            bring_to_size(image, place)
        results: list[Segmentation] = []
        while len(results) < len(batch):
            part = batch[len(results) : len(results) + self.engine.most_at_once]
            try:
                masks, confidences = self._run(part)
            except EngineError as error:
                if len(part) == 1 or error.__cause__ is None or not is_out_of_memory(error.__cause__):
                    raise
                self.engine.most_at_once = len(part) // 2
                self.engine.fallback_reasons += (
                    f"not {len(part)} images at once, but {len(part) // 2}: {error}",
                )
            else:
                pairs = zip(masks, confidences)
                results += (Segmentation(mask, confidence, self.spec.classes) for mask, confidence in pairs)
        return results

    def _run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The engine's result, validated."""
        engine = f"engine {self.engine.name} on {self.engine.device}"
        try:
            result = self.engine.run(images)
            require_result(result, images)
        except EngineError as error:
            raise EngineError(f"{engine} {error}") from error.__cause__
        except Exception as error:  # a library or a driver can throw anything
            raise EngineError(f"{engine}: {in_one_line(error)}") from error
        masks, confidences = result
        highest, classes = int(masks.max()), len(self.spec.classes)
        if highest >= classes and (masks[masks >= classes] != UNLABELLED).any():
            raise EngineError(
                f"{engine} returned a mask that holds class {highest}; the model has {classes} classes"
            )
        return masks, confidences


def _array(image: object) -> NDArray[np.uint8]:
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    require_array(image)
    return image  # type: ignore[return-value]
