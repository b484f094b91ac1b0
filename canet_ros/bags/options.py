# SPDX-License-Identifier: Apache-2.0
"""Options of a bag's segmentation."""

from __future__ import annotations

from dataclasses import dataclass

from canet_ros.pipeline.drawing import DEFAULT_OUTPUTS


@dataclass(frozen=True)
class Options:
    """Selects the input, and the results to write.

    Attributes:
        topics: image topics; empty: all.
        start_ns, end_ns: ``start_ns`` <= log time < ``end_ns``; None: no limit.
        every: segment every n-th image of each camera.
        camera_rate_hz: maximum rate per camera; 0: all images.
        split_bytes, split_ns: amount of IN's messages per file of OUT; 0: split as IN is.
        only_results: leave out the source's own messages.
        outputs: names of ``pictures.OUTPUTS``.
        mask_size: ``image`` or ``network``.
        steady: apply the temporal filter to each camera, see ``Steadying``.
        min_confidence, groups, regions, rotations, ignore_masks: the node's parameters of these names; lists have an
            entry for each of ``topics``.
    """

    topics: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    every: int = 1
    camera_rate_hz: float = 0.0
    split_bytes: int = 0
    split_ns: int = 0
    only_results: bool = False
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    mask_size: str = "image"
    overlay_alpha: float = 0.5
    jpeg_quality: int = 80
    legend: bool = False
    palette: str = "dataset"
    steady: bool = False
    min_confidence: float = 0.0
    groups: str = ""
    regions: tuple[str, ...] = ()
    rotations: tuple[int, ...] = ()
    ignore_masks: tuple[str, ...] = ()
