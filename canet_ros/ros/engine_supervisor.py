# SPDX-License-Identifier: Apache-2.0
"""The engine from the request to the last mask: loaded, self-tested, put to work, watched and restarted."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from canet_ros.inference import Segmenter, progress
from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.engines import EngineError
from canet_ros.inference.familiarity import FamiliarityWatch
from canet_ros.inference.model_folder import ModelError, find_model, load_spec, shipped_model
from canet_ros.inference.palette import recolored
from canet_ros.inference.segmenter import CameraShapedSegmenter
from canet_ros.inference.self_test import self_test
from canet_ros.messages.pictures import Style
from canet_ros.ros.camera import Camera, FrameIntake
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_slots import LatestSlots
from canet_ros.ros.model_loader import ModelLoader, ModelRequest
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.worker import InferenceWorker

# How often the log says that a model is still being loaded.
_LOG_LOADING_S = 30.0
# An engine that hangs more often is given up: each one leaves a thread and its memory behind.
_MOST_RESTARTS = 3
# After working for so long, an engine may be restarted as often again.
_RECOVERED_S = 60.0


@dataclass(frozen=True)
class EngineSnapshot:
    """The engine at one moment.

    Attributes:
        segmenter: None while there is none.
        activity: what takes long, in words; empty: nothing does.
        self_test: result of the model's self-test, in words.
        crashed_s: when the inference thread crashed last, on ``time.monotonic``'s clock; None: never.
    """

    segmenter: Segmenter | None
    activity: str
    self_test: str
    crashed_s: float | None
    statistics: Statistics


class EngineSupervisor:
    """Owns the model loader, the inference worker and the encoder. Call it from the executor's thread.

    Args:
        on_ready: called with the classes when an engine starts to work.
        on_change: called when something changed that diagnostics show.
        on_given_up: called when there is no engine, and none will come.
    """

    def __init__(
        self,
        settings: NodeParameters,
        cameras: Mapping[str, Camera],
        intake: FrameIntake,
        faults: FaultLog,
        logger: Any,
        on_ready: Callable[[ClassTable], None],
        on_change: Callable[[], None],
        on_given_up: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._cameras = cameras
        self._intake = intake
        self._faults = faults
        self._logger = logger
        self._on_ready = on_ready
        self._on_change = on_change
        self._on_given_up = on_given_up
        self.statistics = Statistics()
        self._loader = ModelLoader(self._load)
        self._segmenter: Segmenter | None = None
        self._self_test = ""
        self._worker: InferenceWorker | None = None
        self._encoder: Encoder | None = None
        self._restarts = 0  # without ``_RECOVERED_S`` of work between them
        self._restarted_s = self._logged_loading_s = self._ticked_s = 0.0

    def snapshot(self) -> EngineSnapshot:
        return EngineSnapshot(
            segmenter=self._segmenter,
            activity=self._loader.doing() or progress.now(),
            self_test=self._self_test,
            crashed_s=self._worker.crashed_s if self._worker is not None else None,
            statistics=self.statistics,
        )

    @property
    def is_working(self) -> bool:
        """Whether an engine takes frames."""
        return self._worker is not None

    def request(self) -> ModelRequest:
        """What the parameters ask for, as far as it can be told from the model's files.

        Raises:
            ModelError: the model is missing or broken.
            ValueError: values exclude each other, or a group names a class that the model does not have.
        """
        self._settings.check_together()
        choice = self._settings.segmenter_choice()
        folder = find_model(choice.model or shipped_model(choice.architecture, choice.backbone))
        self._settings.check_groups(load_spec(folder).classes)
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        return ModelRequest(
            choice,
            max_batch=len(self._cameras),
            files=tuple((str(path), status.st_mtime_ns, status.st_size) for path, status in files),
        )

    def start(self, request: ModelRequest) -> None:
        """Have the model loaded, and put it to work once it is; at once if it is still loaded."""
        self._restarts = 0
        self._logged_loading_s = self._ticked_s = time.monotonic()
        self._intake.slots = LatestSlots()
        self._request(request)
        outcome = self._loader.outcome()
        if outcome is not None and outcome.segmenter is not None:
            self._begin(outcome.segmenter)

    def tick(self, inference_timeout_s: float) -> None:
        """Notice what changed: a model that was loaded, threads that crashed, an inference that hangs."""
        now_s = time.monotonic()
        elapsed_s, self._ticked_s = now_s - self._ticked_s, now_s
        if self._worker is None:
            self._follow_loading(now_s)
            return
        fault = self._worker.fault(elapsed_s, inference_timeout_s)
        if fault:
            self._restart(fault)
        elif self._worker.works:
            self._faults.remember("engine", "")
            if now_s - self._restarted_s > _RECOVERED_S:
                self._restarts = 0

    def stop(self, timeout_s: float) -> bool:
        """End the threads; whether all ended in time. One that did not is left to itself."""
        ended = not self._loader.busy
        # The worker first: it feeds the encoder.
        if self._worker is not None and not self._worker.stop(timeout_s):
            # Another thread must not use the same engine.
            self._abandon()
            ended = False
        self._worker = None
        if self._encoder is not None:
            ended = self._encoder.stop(timeout_s) and ended
            self._encoder = None
        return ended

    def release(self) -> None:
        """Let go of the model."""
        self._segmenter = None
        self._loader.forget()

    def _request(self, request: ModelRequest) -> None:
        self._loader.request(request)
        if self._loader.outcome() is None:
            self._segmenter = None  # two models at once may not fit on the device

    def _load(self, request: ModelRequest) -> Segmenter:
        """Runs in the loader's thread."""
        choice = request.choice
        segmenter = Segmenter.load(
            choice.model or shipped_model(choice.architecture, choice.backbone),
            device=choice.device,
            engine=choice.engine,
            precision=choice.precision,
            resolution=choice.resolution,
            max_batch=request.max_batch,
        )
        if isinstance(segmenter, CameraShapedSegmenter):
            self._self_test = "to come with the engine"
            segmenter.prove = self._prove_for_camera
        else:
            self._prove(segmenter)
        return segmenter

    def _prove_for_camera(self, segmenter: Segmenter) -> None:
        """As ``_prove``; only now is it known what the parameters came to."""
        self._prove(segmenter)
        self._logger.info(_engine_text(segmenter))

    def _prove(self, segmenter: Segmenter) -> None:
        """Run the model's self-test on a new engine, in the thread that made it."""
        test = self_test(segmenter)
        self._self_test = str(test)
        if not test.passed:
            raise EngineError(f"the engine's masks are wrong: {test}")
        if test.absent:
            self._logger.info(str(test))

    def _follow_loading(self, now_s: float) -> None:
        """Put the model to work when it is loaded; log that it is not yet."""
        outcome = self._loader.outcome()
        if outcome is None:
            if now_s - self._logged_loading_s >= _LOG_LOADING_S:
                self._logged_loading_s = now_s
                self._logger.info(self._loader.doing())
            return
        if outcome.segmenter is None:
            error = outcome.error
            foreseen = isinstance(error, (ModelError, EngineError, ValueError))
            text = str(error) if foreseen else "".join(traceback.format_exception(error)).strip()
            self._give_up(str(error) or type(error).__name__, text)
            return
        if outcome.segmenter is not self._segmenter:
            self._segmenter = outcome.segmenter
            self._logger.info(f"{_engine_text(self._segmenter)}, loaded in {outcome.took_s:.1f} s")
        self._begin(outcome.segmenter)

    def _begin(self, segmenter: Segmenter) -> None:
        classes = recolored(segmenter.spec.classes, self._settings.value("palette"))
        self._on_ready(classes)
        for camera in self._cameras.values():
            camera.familiarity = FamiliarityWatch(segmenter.spec.familiar)
            camera.steadying.forget()
        if self._encoder is None:
            self._encoder = Encoder(self._faults)
        self._worker = InferenceWorker(
            intake=self._intake,
            cameras=self._cameras,
            segmenter=segmenter,
            encoder=self._encoder,
            style=Style(classes, self._settings.value("legend")),
            at_network_size=self._settings.value("mask_size") == "network",
            live=self._settings.live,
            statistics=self.statistics,
            faults=self._faults,
        )
        self._on_change()

    def _restart(self, fault: str) -> None:
        """Load the engine anew in other threads; the old ones are left to themselves."""
        self._restarts += 1
        self._restarted_s = time.monotonic()
        self.statistics.count("engine_restarts")
        if self._restarts > _MOST_RESTARTS:
            self._give_up(f"{fault}, after {_MOST_RESTARTS} restarts of the engine", fault)
            return
        self._abandon()
        self._intake.slots = LatestSlots()
        text = f"{fault}; the engine is started again ({self._restarts} of {_MOST_RESTARTS})"
        self._logger.error(text)
        self._faults.remember("engine", text)
        try:
            self._request(self.request())
        except (ModelError, ValueError) as error:
            self._give_up(str(error), str(error))
            return
        self._on_change()

    def _give_up(self, why: str, details: str) -> None:
        self._logger.error(f"not activated, the node is inactive again: {details}")
        self._faults.remember("engine", why)
        self._abandon()
        self._on_given_up()

    def _abandon(self) -> None:
        """Use this engine no more, whatever its thread is in."""
        if self._worker is not None:
            self._worker.abandon()
            self._worker = None
        self.release()


def _engine_text(segmenter: Segmenter) -> str:
    engine, model = segmenter.engine, f"model {segmenter.spec.name}"
    if isinstance(segmenter, CameraShapedSegmenter):
        return f"{model}: size, engine and precision follow from the first image"
    why = "; ".join((engine.reason, *engine.passed_over))
    return (
        f"{model} at {segmenter.resolution_text} on {engine.device}, {engine.name} {engine.precision} ({why})"
    )
