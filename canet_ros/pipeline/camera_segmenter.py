# SPDX-License-Identifier: Apache-2.0
"""``resolution: camera``: a segmenter whose engine is made for the shape of the camera's images."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from canet_ros import activity
from canet_ros.engines import Engine
from canet_ros.engines.engine import UNLIMITED
from canet_ros.errors import EngineError
from canet_ros.model.model_folder import ModelSpec, Resolution
from canet_ros.opencv import require_array
from canet_ros.pipeline.camera_shape import camera_resolution
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.segmenter import Segmenter

_MOST_ENGINES = 8  # a folder of photographs may have any number of shapes


class CameraShapedSegmenter(Segmenter):
    """A segmenter whose resolution and engine follow from the shape of the first image that it gets.

    Until then ``engine`` is a placeholder and ``resolution`` is the model's own. An image of another shape gets its
    own engine, which takes seconds; ``shape_problem`` tells in advance.

    Args:
        build: makes the engine for a resolution; raises as ``load``.

    Attributes:
        on_new_engine: called with a segmenter of each new engine before its first use; raises EngineError to reject
            it. The engine of a rejected shape is not made again. The engines of the last eight shapes are kept.
    """

    def __init__(
        self, spec: ModelSpec, build: Callable[[Resolution], Engine], folder: Path, graph_hash: str
    ) -> None:
        super().__init__(spec, _EngineToCome(), spec.resolution, folder, graph_hash)
        self._build = build
        self.on_new_engine: Callable[[Segmenter], None] = lambda segmenter: None
        self._verified = functools.lru_cache(_MOST_ENGINES)(self._build_verified)
        self._building = threading.Lock()
        self._chosen = False

    @property
    def resolution_text(self) -> str:
        return f"{super().resolution_text} for the camera" if self._chosen else "that of the first image"

    def begin(self) -> None:
        self._chosen = False

    def shape_problem(self, image: NDArray[np.uint8]) -> str:
        fitting = self._fitting(image)
        if not self._chosen:
            self.resolution, self._chosen = fitting, True
        if fitting == self.resolution:
            return ""
        width, height = self.resolution
        return (
            f"an image of {image.shape[1]}x{image.shape[0]} does not have the aspect ratio of the first image, for "
            f"which the resolution {width}x{height} was chosen: use another node for such cameras, or set a "
            "resolution; after a change of the camera, deactivate and activate"
        )

    def infer(self, images: Sequence[NDArray[np.uint8]]) -> list[Segmentation]:
        shapes = {self._fitting(image) for image in images}
        if len(shapes) > 1:
            raise ValueError("with resolution 'camera' all images of a batch must have the same shape")
        for resolution in shapes:
            with self._building:
                segmenter = self._verified(resolution)
            if isinstance(segmenter, EngineError):
                raise segmenter
            self.engine, self.resolution, self._chosen = segmenter.engine, resolution, True
            return segmenter.infer(images)
        return []

    def _build_verified(self, resolution: Resolution) -> Segmenter | EngineError:
        with activity.doing("loading the engine for the shape of the camera's images"):
            engine = self._build(resolution)
            segmenter = Segmenter(self.spec, engine, resolution, self.folder, self.graph_hash)
            try:
                self.on_new_engine(segmenter)
            except EngineError as error:
                return error
            return segmenter

    def _fitting(self, image: NDArray[np.uint8]) -> Resolution:
        require_array(image)
        if image.ndim < 2 or image.size == 0:
            raise ValueError(f"expected an image, got {image.dtype} {image.shape}")
        return camera_resolution(self.spec.resolution, (image.shape[1], image.shape[0]))


class _EngineToCome:
    """In an engine's place until the shape of the camera is known."""

    name = device = precision = "none yet"
    reason = "made when the first image shows the camera's shape"
    fallback_reasons: tuple[str, ...] = ()
    most_at_once = UNLIMITED
    streams = 1

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        raise EngineError("the engine is loaded with the first image")
