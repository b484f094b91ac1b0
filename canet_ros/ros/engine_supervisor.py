# SPDX-License-Identifier: Apache-2.0
"""Loads, self-tests, runs, monitors and switches the engine."""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from canet_ros import activity
from canet_ros.engines.engine import is_out_of_memory
from canet_ros.errors import EngineError
from canet_ros.model.model_folder import ModelError
from canet_ros.model.palette import recolored
from canet_ros.pipeline.camera_segmenter import CameraShapedSegmenter
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import self_test
from canet_ros.ros.camera_set import CameraSet
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_slots import LatestSlots
from canet_ros.ros.model_loader import LoadedModel, Loading, ModelRequest, require_memory
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.run_node import STATUS_BROKEN, BrokenProcessError
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.worker import InferenceWorker

_LOADING_LOG_PERIOD_S = 30.0


@dataclass(frozen=True)
class EngineSnapshot:
    """The engine at one moment.

    Attributes:
        segmenter: None while no model is loaded.
        activity: long-running operation that masks wait for, as text; empty: none.
        switching: the same for a model that is loaded beside the one in use.
        self_test: result of the model's self-test, as text.
    """

    segmenter: Segmenter | None
    activity: str
    switching: str
    self_test: str
    statistics: Statistics


class EngineSupervisor:
    """Owns the loading of models and the inference worker. Call it from the executor's thread.

    An engine that hangs or only fails ends the process: its thread cannot be ended, and a CUDA context that has failed
    fails for the whole process.

    Args:
        on_change: called when diagnostics change.
        on_failure: called when the engine cannot be loaded.
    """

    def __init__(
        self,
        settings: NodeParameters,
        cameras: CameraSet,
        faults: FaultLog,
        logger: Any,
        on_change: Callable[[], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._cameras = cameras
        self._faults = faults
        self._logger = logger
        self._on_change = on_change
        self._on_failure = on_failure
        self.statistics = Statistics()
        self._loading: Loading | None = None
        self._one_at_a_time = threading.Lock()
        self._loaded: LoadedModel | None = None  # handed to the worker, or ready for the next activation
        self._model = ""  # value of the parameter that the last request followed
        self._worker: InferenceWorker | None = None
        self._logged_loading_s = self._ticked_s = 0.0

    def snapshot(self) -> EngineSnapshot:
        loading, beside = self._loading.activity if self._loading else "", self._worker is not None
        model = (self._worker.model if self._worker else None) or self._loaded
        return EngineSnapshot(
            segmenter=model.segmenter if model else None,
            activity="" if beside and loading else loading or activity.now(),
            switching=loading if beside else "",
            self_test=model.self_test if model else "",
            statistics=self.statistics,
        )

    @property
    def is_working(self) -> bool:
        """Whether an engine accepts frames."""
        return self._worker is not None

    def request(self) -> ModelRequest:
        """The model that the parameters request, checked against its files.

        Raises:
            ModelError: the model is missing or invalid.
            ValueError: parameters conflict, or a group names a class that the model does not have.
        """
        settings = self._settings
        settings.check_together()
        folder, spec = settings.find_model(settings.value("model"))
        settings.check_groups(spec.classes)
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        options = {name: settings.value(name) for name in ("device", "engine", "precision", "resolution")}
        return ModelRequest(
            settings.value("model"),
            folder,
            {**options, "max_batch": len(self._cameras.by_name)},
            files=tuple((str(path), status.st_mtime_ns, status.st_size) for path, status in files),
            classes=spec.classes,
            image_shape=self._worker.image_shape if self._worker else None,
        )

    def start(self, request: ModelRequest) -> None:
        """Load the model and start inference; at once if the model is still loaded."""
        self._logged_loading_s = self._ticked_s = time.monotonic()
        self._cameras.intake.slots = LatestSlots()
        self._model = request.model
        self._settings.known_classes = request.classes.names
        self._faults.remember("model")
        if self._loaded is not None and self._loaded.request == request:
            self._ignore_loading()  # of another model, requested before the node was deactivated
            self._use(self._loaded)
        else:
            self._loaded = None  # two models at once may not fit on the device
            self._load_in_thread(request)
            self._check_loading()

    def tick(self, inference_timeout_s: float) -> None:
        """Check for a loaded model, another requested model and a broken engine.

        Raises:
            BrokenProcessError: the engine hangs, or every inference fails.
        """
        now_s = time.monotonic()
        elapsed_s, self._ticked_s = now_s - self._ticked_s, now_s
        self._follow_model()
        if self._worker is not None:
            if self._loaded is not None and self._loaded.problem:
                self._give_up(EngineError(self._loaded.problem))
                return
            fault = self._worker.fault(elapsed_s, inference_timeout_s)
            if fault:
                self._logger.fatal(
                    f"ending the process with status {STATUS_BROKEN}, to be restarted: {fault}"
                )
                self._faults.remember("engine", Fault.ENGINE_BROKEN, f"the process ends: {fault}")
                raise BrokenProcessError(fault)
        self._check_loading()

    def stop(self, timeout_s: float) -> bool:
        """End the threads; return whether all ended in time. The others are abandoned."""
        pending = self._loading is not None and self._loading.outcome is None
        ended = not pending and not self._one_at_a_time.locked()
        if self._worker is not None:
            # The worker first: it feeds the encoder.
            if not self._worker.stop(timeout_s):
                self.release()  # the next activation loads another engine
                ended = False
            ended = self._worker.encoder.stop(timeout_s) and ended
            self._worker = None
        return ended

    def release(self) -> None:
        """Let go of the model."""
        self._loaded = None
        self._ignore_loading()

    def _follow_model(self) -> None:
        """Request the model that the live parameter names; it is loaded beside the one in use."""
        if self._settings.value("model") == self._model:
            return
        self._model = self._settings.value("model")
        self._faults.remember("model")
        try:
            request = self.request()
        except (ModelError, ValueError) as error:
            self._refuse(error)
            return
        if self._loaded is not None and self._loaded.request == request:
            self._ignore_loading()
        else:
            self._load_in_thread(request)
        self._on_change()

    def _load_in_thread(self, request: ModelRequest) -> None:
        """Load a model, unless it is loaded or being loaded; the newest request wins."""
        if self._loading is None or self._loading.request != request:
            self._ignore_loading()
            self._loading = Loading(request, self._load, self._one_at_a_time)

    def _ignore_loading(self) -> None:
        if self._loading is not None:
            self._loading.ignored = True
            self._loading = None

    def _check_loading(self) -> None:
        """Use the model once it is loaded; until then log the progress."""
        loading, now_s = self._loading, time.monotonic()
        if loading is None:
            return
        outcome = loading.outcome
        if outcome is None:
            if self._worker is None and now_s - self._logged_loading_s >= _LOADING_LOG_PERIOD_S:
                self._logged_loading_s = now_s
                self._logger.info(loading.activity)
            return
        self._loading = None
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self._settings.check_groups(outcome.request.classes)
        except BaseException as error:  # a driver or an engine can raise anything
            self._refuse(error)
        else:
            self._use(outcome)

    def _refuse(self, error: BaseException) -> None:
        """Keep the model in use, and report why the requested one is not used; deactivate the node without one."""
        if self._worker is None:
            self._give_up(error)
            return
        wanted, self._model = self._model, self._loaded.request.model if self._loaded else self._model
        reason = str(error) or type(error).__name__
        if is_out_of_memory(error):
            reason += "; two models do not fit into memory: deactivate the node, set model, activate it"
        self._faults.remember("model", Fault.MODEL_KEPT, f"model {wanted!r} is not used: {reason}")
        self._logger.error(f"keeping model {self._model!r}: {self._faults.last('model').text}")
        self._ignore_loading()
        self._settings.set_model(self._model)
        self._on_change()

    def _give_up(self, error: BaseException) -> None:
        expected = isinstance(error, (ModelError, EngineError, ValueError))
        details = str(error) if expected else "".join(traceback.format_exception(error)).strip()
        self._logger.error(f"deactivating the node: {details}")
        self._faults.remember("engine", Fault.MODEL_NOT_LOADED, str(error) or type(error).__name__)
        self.release()
        self._on_failure()

    def _load(self, request: ModelRequest) -> LoadedModel:
        """Runs in the loader's thread."""
        if self._loaded is not None:
            require_memory()
        segmenter = Segmenter.load(request.folder, **request.options)
        loaded = LoadedModel(request, segmenter)
        if isinstance(segmenter, CameraShapedSegmenter):
            loaded.self_test = "pending: runs at the first image"
            segmenter.on_new_engine = functools.partial(self._self_test_for_camera, loaded)
            if request.image_shape is not None:
                segmenter.segment_batch([np.zeros((*request.image_shape, 3), np.uint8)])
        else:
            self._run_self_test(loaded, segmenter)
        return loaded

    def _self_test_for_camera(self, loaded: LoadedModel, segmenter: Segmenter) -> None:
        """Run the self-test and log the engine, which was chosen for the camera's images."""
        self._run_self_test(loaded, segmenter)
        self._logger.info(_engine_text(segmenter))

    def _run_self_test(self, loaded: LoadedModel, segmenter: Segmenter) -> None:
        """Run the model's self-test on a new engine, in the thread that created it."""
        test = self_test(segmenter)
        loaded.self_test = str(test)
        if not test.passed:
            loaded.problem = f"self-test failed: {test}"
            raise EngineError(loaded.problem)
        if test.agreement is None:
            self._logger.info(str(test))

    def _use(self, model: LoadedModel) -> None:
        """Hand a model to the worker, which is started for the first one."""
        if model is not self._loaded:
            self._logger.info(f"{_engine_text(model.segmenter)}, loaded in {model.took_s:.1f} s")
        self._loaded = model
        self._settings.known_classes = model.request.classes.names
        if self._worker is None:
            self._worker = InferenceWorker(
                self._cameras,
                at_network_size=self._settings.value("mask_size") == "network",
                live=self._settings.live,
                statistics=self.statistics,
                faults=self._faults,
            )
        classes = recolored(model.request.classes, self._settings.value("palette"))
        self._worker.use(model, classes, self._settings.value("legend"))


def _engine_text(segmenter: Segmenter) -> str:
    engine, model = segmenter.engine, f"model {segmenter.spec.name}"
    if isinstance(segmenter, CameraShapedSegmenter):
        return f"{model}: resolution, engine and precision are chosen at the first image"
    reasons = "; ".join((engine.reason, *engine.fallback_reasons))
    return f"{model} at {segmenter.resolution_text} on {engine.device}, {engine.name} {engine.precision} ({reasons})"
