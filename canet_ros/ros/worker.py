# SPDX-License-Identifier: Apache-2.0
"""Inference thread: takes the newest frames of all cameras and publishes the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros import activity
from canet_ros.messages.images import ImageMessageError
from canet_ros.model.class_table import ClassTable
from canet_ros.pipeline.camera_shape import squeeze_warning
from canet_ros.pipeline.outputs import CAMERA_INFO, ProcessOptions
from canet_ros.pipeline.process import Frame
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.ros.camera import Camera
from canet_ros.ros.camera_set import CameraSet
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_slots import ReceivedFrame
from canet_ros.ros.model_loader import LoadedModel
from canet_ros.ros.outputs import Result
from canet_ros.ros.parameters import LiveSettings
from canet_ros.ros.statistics import Statistics, age_s, nanoseconds

# An inference slower than this multiple of the slowest one so far, per frame, counts as hung.
_HUNG_FACTOR = 10
_MAX_CONSECUTIVE_FAILURES = 5  # more are the fault of the engine, not of the frames
_MAX_TICK_S = 0.5  # longer ticks mean that the process was stopped or the machine suspended


@dataclass(frozen=True)
class _Job:
    camera: Camera
    header: Any
    pixels: NDArray[np.uint8]
    transformed: NDArray[np.uint8]  # the network's input, after the camera transform
    wanted: frozenset[str]
    stages_ms: dict[str, float]


class InferenceWorker:
    """One thread for all cameras: the new frames form one batch, so that no camera waits for another.

    ``fault`` is its watchdog; call it several times a second.

    Attributes:
        model: in use; None until the thread has begun.
        image_shape: (H, W) of the last image after the camera transform; None: none so far.
        encoder: gets the compressed results; stop it after the worker.
    """

    def __init__(
        self,
        cameras: CameraSet,
        at_network_size: bool,
        live: Callable[[], LiveSettings],
        statistics: Statistics,
        faults: FaultLog,
    ) -> None:
        self._slots = cameras.intake.slots
        self._cameras = cameras
        self.encoder = Encoder(faults)
        self._at_network_size = at_network_size
        self._live = live
        self._now_ns = cameras.intake.now_ns
        self._statistics = statistics
        self._faults = faults
        self.model: LoadedModel | None = None
        self._next: tuple[LoadedModel, ClassTable, bool] | None = None
        self.image_shape: tuple[int, int] | None = None
        self._stopping = threading.Event()
        # Frames in inference, by camera; a batch is known by its identity.
        self._batch: Mapping[str, ReceivedFrame] | None = None
        self._watched_batch: Mapping[str, ReceivedFrame] | None = None
        self._busy_s = 0.0
        self._slowest_s = 0.0  # inference of one frame
        self._consecutive_failures = 0
        # A daemon, so that a long inference cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def use(self, model: LoadedModel, classes: ClassTable, legend: bool) -> None:
        """Use this model from the next batch on. The first one is required before any frame.

        Args:
            classes: of the model, in the colours of the palette.
        """
        self._next = model, classes, legend
        self._slots.wake()

    def stop(self, timeout_s: float) -> bool:
        """Stop publishing and wait for the thread; return whether it ended. Otherwise its engine must not be reused."""
        self._stopping.set()
        for name in self._slots.close():
            self._cameras.by_name[name].statistics.count("unwanted")
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def fault(self, elapsed_s: float, timeout_s: float) -> str:
        """Why the engine is broken; empty: it is not.

        Args:
            elapsed_s: since the last call.
            timeout_s: shortest duration after which an inference counts as hung.
        """
        if self._consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
            return f"{self._consecutive_failures} consecutive inferences failed: {self._faults.last('inference').text}"
        batch = self._batch
        if batch is None or batch is not self._watched_batch:
            self._watched_batch, self._busy_s = batch, 0.0
            return ""
        if activity.now():  # building an engine, for the camera's shape or another model, may take minutes
            return ""
        self._busy_s += min(elapsed_s, _MAX_TICK_S)
        limit_s = max(timeout_s, _HUNG_FACTOR * self._slowest_s * len(batch))
        return f"inference has not returned for {self._busy_s:.1f} s" if self._busy_s > limit_s else ""

    def _run(self) -> None:
        while (frames := self._slots.take_all()) is not None:
            self._batch = frames
            if self._next is not None:
                self._switch(*self._next)
            if frames:
                self._serve(frames)
            self._batch = None

    def _switch(self, model: LoadedModel, classes: ClassTable, legend: bool) -> None:
        self._next = None
        self.model, self._segmenter = model, model.segmenter
        self._classes, self._legend = classes, legend
        self._segmenter.begin()
        for camera in self._cameras.by_name.values():
            camera.restart_filters(self._segmenter.spec.familiar)
        self._cameras.publish_classes(classes)

    def _serve(self, frames: Mapping[str, ReceivedFrame]) -> None:
        live = self._live()
        prepared = (self._prepare(self._cameras.by_name[name], frame, live) for name, frame in frames.items())
        jobs = [job for job in prepared if job is not None]
        try:
            segmentations = self._segment([job for job in jobs if job.wanted - {CAMERA_INFO}])
        except BaseException as error:  # engines can raise anything; the next frames may work
            self._statistics.count("failures")
            self._consecutive_failures += 1
            self._report_failure("inference", Fault.INFERENCE_FAILED, jobs, error)
            return
        for i, job in enumerate(jobs):
            if self._stopping.is_set():
                self._count_unwanted(jobs[i:])
                return
            try:
                self._publish(job, segmentations.get(job.camera.name), live)
            except Exception as error:  # of the middleware; must not affect the other cameras
                self._report_failure(job.camera.name, Fault.PUBLISHING_FAILED, [job], error)

    def _prepare(self, camera: Camera, frame: ReceivedFrame, live: LiveSettings) -> _Job | None:
        """Decode and transform a frame; None if it is dropped, which is counted and reported."""
        taken_s, header = time.monotonic(), frame.message.header
        stages_ms = {"wait": (taken_s - frame.received_s) * 1e3}
        wanted = camera.outputs.wanted()
        if not wanted:
            camera.drop(header, "unwanted", stages_ms)
            return None
        age = age_s(header.stamp, self._now_ns())
        if age is not None and 0 < live.max_age < age:
            camera.drop(header, "too_old", stages_ms)
            arrived_s = age - stages_ms["wait"] / 1e3
            hint = "synchronise the clocks of camera and node, or check the link"
            self._faults.report(
                camera.name,
                Fault.FRAME_TOO_OLD,
                f"frame is {age:.3f} s old, max_age is {live.max_age:g} s; it was {arrived_s:.3f} s old on arrival: "
                f"{hint if arrived_s > live.max_age else 'the engine is too slow for max_age'}",
            )
            return None
        try:
            pixels = camera.pixels(frame.message, live.max_pixels)
            transformed = camera.transform.to_network(pixels)
            self.image_shape = transformed.shape[0], transformed.shape[1]
            problem = self._segmenter.shape_problem(transformed)
            if problem:
                raise ImageMessageError(problem)
        except Exception as error:  # ValueError for known faults; codecs can raise others
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            camera.drop(header, "bad", stages_ms)
            self._faults.report(camera.name, Fault.IMAGE_REFUSED, text)
            return None
        warning = squeeze_warning(self._segmenter.resolution, transformed.shape[1::-1])
        if warning:
            self._faults.advise(camera.name, Fault.ASPECT_RATIO, warning)
        stages_ms["convert"] = (time.monotonic() - taken_s) * 1e3
        return _Job(camera, header, pixels, transformed, wanted, stages_ms)

    def _segment(self, jobs: Sequence[_Job]) -> dict[str, Segmentation]:
        """Segment one batch; return the results by camera."""
        if not jobs:
            return {}
        start_s = time.monotonic()
        reported = len(self._segmenter.engine.fallback_reasons)
        results = self._segmenter.infer([job.transformed for job in jobs])
        new_reasons = self._segmenter.engine.fallback_reasons[
            reported:
        ]  # a smaller batch, when out of memory
        for reason in new_reasons:
            self._faults.report("inference", Fault.BATCH_REDUCED, reason)
        duration_s = time.monotonic() - start_s
        self._consecutive_failures = 0
        self._slowest_s = max(self._slowest_s, duration_s / len(jobs))
        self._statistics.count("batches")
        self._statistics.count("frames", len(jobs))
        self._statistics.time({"inference": duration_s * 1e3})
        for job in jobs:
            job.stages_ms["inference"] = duration_s * 1e3
        return dict(zip((job.camera.name for job in jobs), results))

    def _publish(self, job: _Job, segmentation: Segmentation | None, live: LiveSettings) -> None:
        start_s, camera, stamp = time.monotonic(), job.camera, job.header.stamp
        if segmentation is not None:
            camera_size = (job.pixels.shape[1], job.pixels.shape[0])
            counted = camera.transform.counted(camera_size, self._segmenter.resolution)
            camera.ood_monitor.update(segmentation, counted)
            if not live.steady:
                camera.temporal_filter.forget()
        camera.share_filter.time_constant_s = live.shares_smoothing
        frame = Frame(
            job.pixels,
            nanoseconds(stamp),
            camera.transform,
            camera.temporal_filter if live.steady else None,
            camera.share_filter,
        )
        options = ProcessOptions(
            self._classes,
            self._legend,
            self._at_network_size,
            live.min_confidence,
            live.overlay_alpha,
            live.groups,
            live.min_object_area,
            live.organized_points,
        )
        size = frame.results_size(self._segmenter.resolution, self._at_network_size)
        info = camera.camera_info(stamp, job.wanted)
        cloud = None
        if camera.clouds is not None and camera.outputs.clouds_in(job.wanted):
            cloud = camera.clouds.take(stamp, live.sync_slop)
        result = Result(job.header, frame, segmentation, info, size, cloud)
        camera.outputs.publish(job.wanted, result, options, live.jpeg_quality, self.encoder)
        job.stages_ms["publish"] = (time.monotonic() - start_s) * 1e3
        age = age_s(stamp, self._now_ns())
        if age is not None:
            job.stages_ms["age"] = age * 1e3
        camera.statistics.time(job.stages_ms)
        camera.statistics.count("published")
        camera.log_frame(job.header, "published " + ", ".join(sorted(job.wanted)), job.stages_ms)

    def _count_unwanted(self, jobs: Sequence[_Job]) -> None:
        """Count frames that are not published because the node was stopped."""
        for job in jobs:
            job.camera.statistics.count("unwanted")

    def _report_failure(self, source: str, kind: Fault, jobs: Sequence[_Job], error: BaseException) -> None:
        if self._stopping.is_set():
            self._count_unwanted(jobs)
            return  # publishers may already be destroyed
        for job in jobs:
            job.camera.drop(job.header, "failed", job.stages_ms)
        self._faults.report(source, kind, f"{type(error).__name__}: {error}")
