# SPDX-License-Identifier: Apache-2.0
"""Runs an ONNX model as it is, to learn what it gives."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.errors import in_one_line
from canet_ros.model.model_folder import ModelError


def onnx_runner(model: Any) -> Callable[[dict[str, NDArray[Any]]], NDArray[Any]]:
    """Runs a model of one output in fp32 on the CPU: in ONNX Runtime, or else in OpenVINO.

    Raises:
        ModelError: it does not run.
        ModuleNotFoundError: neither is installed.
    """
    run = _or_model_error(_load, model.SerializeToString())
    return lambda feeds: np.array(_or_model_error(run, feeds)[0])


def _or_model_error(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # engines raise what they please
        raise ModelError(f"the graph does not run: {in_one_line(error)}") from error


def _load(model: bytes) -> Callable[[dict[str, NDArray[Any]]], Any]:
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return partial(session.run, None)
    from canet_ros.model.openvino_core import CORE

    compiled = CORE.compile_model(CORE.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    run: Callable[[dict[str, NDArray[Any]]], Any] = compiled.create_infer_request().infer
    return run
