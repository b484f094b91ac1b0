# SPDX-License-Identifier: Apache-2.0
"""Options of a bag's segmentation."""

from __future__ import annotations

from dataclasses import dataclass

from canet_ros.bags.bag import BagError
from canet_ros.pipeline.options import PipelineOptions
from canet_ros.pipeline.outputs import DEFAULT_OUTPUTS

# Three years: times below are relative to the beginning of the bag, times above are since 1970.
_ABSOLUTE_FROM_NS = 10**8 * 10**9


@dataclass(frozen=True)
class Options(PipelineOptions):
    """Selects the input, and the results to write. Lists per camera have an entry for each of ``topics``.

    Attributes:
        topics: image topics; empty: all.
        start_ns, end_ns: ``start_ns`` <= log time < ``end_ns``, since 1970 or from the beginning; None: no limit.
        every: segment every n-th image of each camera.
        camera_rate_hz: maximum rate per camera; 0: all images.
        split_mb, split_ns: amount of IN's messages per file of OUT; 0 or None: split as IN is.
        only_results: leave out the source's own messages.
        outputs: names of ``drawing.OUTPUTS``, and of groups.

    All others are the node's parameters of these names.
    """

    topics: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    every: int = 1
    camera_rate_hz: float = 0.0
    split_mb: float = 0.0
    split_ns: int | None = None
    only_results: bool = False
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    mask_size: str = "image"
    jpeg_quality: int = 80
    min_object_area: int = 100
    shares_smoothing: float = 0.5
    cloud_topics: tuple[str, ...] = ()
    cloud_extrinsics: tuple[str, ...] = ()
    depth_topics: tuple[str, ...] = ()
    sync_slop: float = 0.05
    organized_points: bool = False

    def window(self, first_ns: int, last_ns: int) -> tuple[int | None, int | None]:
        """Start and end since 1970 for a bag with these first and last times.

        Raises:
            BagError: no message can lie between them.
        """
        start_ns, end_ns = (
            time_ns + first_ns if time_ns is not None and time_ns < _ABSOLUTE_FROM_NS else time_ns
            for time_ns in (self.start_ns, self.end_ns)
        )
        begin_ns = first_ns if start_ns is None else max(start_ns, first_ns)
        if begin_ns > last_ns or (end_ns is not None and end_ns <= begin_ns):
            lasts = f"it lasts {(last_ns - first_ns) / 1e9:.3f} s, from {first_ns / 1e9:.3f} on"
            raise BagError(f"no message of the bag lies between --start and --end: {lasts}")
        return start_ns, end_ns
