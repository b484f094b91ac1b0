# SPDX-License-Identifier: Apache-2.0
"""The inference thread: newest frames of all cameras in, results published."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.inference import Segmentation, Segmenter
from canet_ros.inference.camera_shape import squeeze_warning
from canet_ros.ros.camera import Camera
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_slots import LatestSlots, ReceivedFrame
from canet_ros.ros.image_conversion import ImageError
from canet_ros.ros.outputs import Result, Style, needs_inference
from canet_ros.ros.parameters import LiveSettings
from canet_ros.ros.statistics import Statistics, age_s


@dataclass(frozen=True)
class _Job:
    camera: Camera
    header: Any
    pixels: NDArray[np.uint8]
    seen: NDArray[np.uint8]  # what of them the network sees
    wanted: frozenset[str]
    stages_ms: dict[str, float]


class InferenceWorker:
    """One thread that serves all cameras: those with a new frame make one batch, so that none waits for another."""

    def __init__(
        self,
        slots: LatestSlots[ReceivedFrame],
        cameras: Mapping[str, Camera],
        segmenter: Segmenter,
        encoder: Encoder,
        style: Style,
        at_network_size: bool,
        live: Callable[[], LiveSettings],
        now_ns: Callable[[], int],
        statistics: Statistics,
        faults: FaultLog,
    ) -> None:
        self._slots = slots
        self._cameras = cameras
        self._segmenter = segmenter
        segmenter.begin()
        self._encoder = encoder
        self._style = style
        self._at_network_size = at_network_size
        self._live = live
        self._now_ns = now_ns
        self._statistics = statistics
        self._faults = faults
        self._stopping = threading.Event()
        # A daemon, so that a long inference cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Publish nothing more, and wait for the thread to end; whether it did."""
        self._stopping.set()
        self._slots.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (frames := self._slots.take_all()) is not None:
            live = self._live()
            jobs = [
                job
                for name, frame in frames.items()
                if (job := self._prepare(self._cameras[name], frame, live))
            ]
            try:
                segmentations = self._segment([job for job in jobs if needs_inference(job.wanted)])
            except Exception as error:  # whatever an engine throws: the next frames may work
                self._statistics.count("failures")
                self._report_failure("inference", jobs, error)
                continue
            for job in jobs:
                if self._stopping.is_set():
                    return
                try:
                    self._publish(job, segmentations.get(job.camera.name), live)
                except Exception as error:  # the middleware's: the other cameras must not suffer
                    self._report_failure(job.camera.name, [job], error)

    def _prepare(self, camera: Camera, frame: ReceivedFrame, live: LiveSettings) -> _Job | None:
        """What there is to do for a frame; None, counted and reported, if nothing."""
        taken_s = time.monotonic()
        wanted = camera.outputs.wanted()
        if not wanted:
            camera.statistics.count("unwanted")
            return None
        age = age_s(frame.message.header.stamp, self._now_ns())
        if age is not None and 0 < live.max_age_s < age:
            camera.statistics.count("too_old")
            self._faults.report(
                camera.name,
                f"frames are dropped as older than max_age {live.max_age_s:g} s: this one is {age:.3f} s old",
            )
            return None
        try:
            pixels = camera.input.pixels(frame.message)
            seen = camera.view.seen(pixels)
            problem = self._segmenter.shape_problem(seen)
            if problem:
                raise ImageError(problem)
        except ValueError as error:  # ImageError, or the region does not lie in it
            camera.statistics.count("bad")
            self._faults.report(camera.name, str(error))
            return None
        squeezed = squeeze_warning(self._segmenter.resolution, (seen.shape[1], seen.shape[0]))
        if squeezed:
            self._faults.advise(camera.name, squeezed)
        stages_ms = {
            "wait": (taken_s - frame.received_s) * 1e3,
            "convert": (time.monotonic() - taken_s) * 1e3,
        }
        return _Job(camera, frame.message.header, pixels, seen, wanted, stages_ms)

    def _segment(self, jobs: Sequence[_Job]) -> dict[str, Segmentation]:
        """Results by camera, of one batch."""
        if not jobs:
            return {}
        start_s = time.monotonic()
        results = self._segmenter.segment_batch([job.seen for job in jobs])
        duration_ms = (time.monotonic() - start_s) * 1e3
        self._statistics.count("batches")
        self._statistics.count("frames", len(jobs))
        self._statistics.time({"inference": duration_ms})
        for job in jobs:
            job.stages_ms["inference"] = duration_ms
        return dict(zip((job.camera.name for job in jobs), results))

    def _publish(self, job: _Job, segmentation: Segmentation | None, live: LiveSettings) -> None:
        start_s = time.monotonic()
        size = (job.pixels.shape[1], job.pixels.shape[0])
        if self._at_network_size:
            size = job.camera.view.results_size(size, self._segmenter.resolution)
        info = job.camera.input.infos.match(job.header.stamp)
        result = Result(job.header, job.pixels, segmentation, info, size, job.camera.view)
        job.camera.outputs.publish(job.wanted, result, self._style, live, self._encoder)
        job.stages_ms["publish"] = (time.monotonic() - start_s) * 1e3
        age = age_s(job.header.stamp, self._now_ns())
        if age is not None:
            job.stages_ms["age"] = age * 1e3
        job.camera.statistics.time(job.stages_ms)
        job.camera.statistics.count("published")

    def _report_failure(self, source: str, jobs: Sequence[_Job], error: Exception) -> None:
        if self._stopping.is_set():
            return  # publishers may be gone already
        for job in jobs:
            job.camera.statistics.count("failed")
        self._faults.report(source, f"{type(error).__name__}: {error}")
