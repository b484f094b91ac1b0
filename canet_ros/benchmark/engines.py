# SPDX-License-Identifier: Apache-2.0
"""Time per batch of engines, precisions, sizes and batches, interleaved, with plain PyTorch as the baseline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.engines import EngineRequest, create_engine
from canet_ros.errors import EngineError
from canet_ros.model.model_folder import Resolution, load_network, load_spec
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import AGREEMENT, AGREEMENT_OF_INT8
from canet_ros.simulation import StreetDrive
from canet_ros.training.dataset import LabelledImage
from canet_ros.training.evaluate import compare_with_labels
from canet_ros.training.metrics import scores

if TYPE_CHECKING:
    from torch import nn

PLAIN = "plain PyTorch"
# Figure, heading and format of the columns of a table.
_COLUMNS = (
    ("model", "model", "{}"),
    ("resolution", "size", "{}"),
    ("batch", "batch", "{}"),
    ("engine", "engine", "{}"),
    ("precision", "precision", "{}"),
    ("device", "device", "{}"),
    ("rounds", "rounds", "{}"),
    ("median_ms", "median ms", "{:.1f}"),
    ("p95_ms", "p95 ms", "{:.1f}"),
    ("fps", "FPS", "{:.1f}"),
    ("gflops", "GFLOP/s", "{:.0f}"),
    ("over_plain", "vs. plain", "{:.2f}"),
    ("agreement", "agreement", "{:.4f}"),
    ("miou", "mIoU", "{:.4f}"),
)


@dataclass(frozen=True)
class Case:
    """One engine to measure."""

    model: Path
    engine: str
    precision: str
    device: str
    resolution: Resolution
    batch: int


def measure_engines(
    cases: Sequence[Case],
    rounds: int,
    images: Sequence[LabelledImage] = (),
    limit_s: float = math.inf,
    save: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Measure the cases of each size interleaved, so that other load on the machine affects all of them alike.

    The baseline of a size is each model in plain PyTorch, fp32, batch 1, upsampling and argmax at full size.
    Without PyTorch and for ONNX models, the first case is the baseline.

    Args:
        images: labelled images for agreement and mIoU.
        limit_s: time limit for the rounds of a size; at least one round is measured.
        save: called with all rows after each new one.

    Returns:
        Per case: its description, rounds, milliseconds, images per second, GFLOP/s, time per image relative to the
        baseline of the first model, and with ``images`` agreement with fp32 and mIoU. A case that is not available has
        ``error`` instead.
    """
    rows: list[dict[str, Any]] = []
    for resolution in dict.fromkeys(case.resolution for case in cases):
        of_size = [case for case in cases if case.resolution == resolution]
        models = dict.fromkeys(case.model for case in of_size if _in_torch(case.model))
        plain = [Case(model, PLAIN, "fp32", "cpu", resolution, 1) for model in models]
        timed = []
        for case in (*plain, *of_size):
            figures = _description(case)
            try:
                timed.append((case, figures, partial(_run_function(case, figures), _scenes(case))))
            except (EngineError, ImportError) as error:
                rows.append({**figures, "error": str(error)})
        title = f"{resolution[0]}x{resolution[1]}"
        durations_s = time_in_turns([run for _, _, run in timed], rounds, title, limit_s)
        for (case, figures, _), seconds in zip(timed, durations_s):
            median_ms, p95_ms = 1e3 * np.percentile(seconds, (50, 95))
            fps = float(case.batch / median_ms * 1e3)
            figures |= {
                "rounds": len(seconds),
                "median_ms": float(median_ms),
                "min_ms": 1e3 * min(seconds),
                "p95_ms": float(p95_ms),
                "fps": fps,
                "gflops": figures["gflop"] and figures["gflop"] * fps,
                "over_plain": float(median_ms / case.batch / (1e3 * np.median(durations_s[0]))),
            }
            rows.append(figures)
            save(rows)
            if images and case.engine != PLAIN and case.batch == 1:
                figures |= _accuracy(case, images)
                save(rows)
    return rows


def _run_function(case: Case, figures: dict[str, Any]) -> Callable[[NDArray[np.uint8]], Any]:
    """What runs a batch; completes ``figures`` with the engine, precision and device in use."""
    if case.engine == PLAIN:
        return plain_masks(case.model)
    engine = create_engine(
        EngineRequest(case.model, case.resolution, case.engine, case.device, case.precision, case.batch)
    )
    figures |= {"engine": engine.name, "precision": engine.precision, "device": engine.device}
    figures["reason"] = engine.reason
    return engine.run


def _in_torch(model: Path) -> bool:
    return load_spec(model).onnx is None and find_spec("torch") is not None


def _description(case: Case) -> dict[str, Any]:
    gflop = count_gflop(load_network(case.model)[1], case.resolution) if _in_torch(case.model) else None
    return {
        "model": load_spec(case.model).name,
        "resolution": f"{case.resolution[0]}x{case.resolution[1]}",
        "batch": case.batch,
        "engine": case.engine,
        "precision": case.precision,
        "device": case.device,
        "gflop": gflop,
    }


def _scenes(case: Case) -> NDArray[np.uint8]:
    """Synthetic images, (batch, h, w, 3)."""
    drives = [StreetDrive(seed, 640, 480) for seed in range(case.batch)]
    return np.stack([cv2.resize(drive.frame(0).image, case.resolution) for drive in drives])


def time_in_turns(
    runs: Sequence[Callable[[], object]], rounds: int, title: str, limit_s: float = math.inf
) -> list[list[float]]:
    durations_s: list[list[float]] = [[] for _ in runs]
    end_s = time.monotonic() + limit_s
    for run in runs:
        run()
    for _ in tqdm(range(rounds), desc=title, unit="round", disable=None):
        for run, durations in zip(runs, durations_s):
            run()  # not timed: fills the caches, while threads of the previous engine may still be spinning
            start_s = time.perf_counter()
            run()
            durations.append(time.perf_counter() - start_s)
        if time.monotonic() >= end_s:
            break
    return durations_s


def _accuracy(case: Case, images: Sequence[LabelledImage]) -> Mapping[str, float]:
    """Fraction of pixels that agree with fp32 in PyTorch (ONNX models: the fastest engine), and mIoU of both."""
    exact = "torch" if _in_torch(case.model) else "auto"
    reference = Segmenter.load(case.model, "cpu", exact, "fp32", case.resolution)
    measured = Segmenter.load(case.model, case.device, case.engine, case.precision, case.resolution)
    agreeing = []

    def masks_of(image: NDArray[np.uint8], _: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        masks = [reference(image).mask, measured(image).mask]
        agreeing.append((masks[0] == masks[1]).mean())
        return masks

    title = f"{case.engine} {case.precision} on images"
    expected, found = compare_with_labels(masks_of, images, len(reference.spec.classes), title)
    return {
        "agreement": float(np.mean(agreeing)),
        "miou": scores(found.confusion).miou,
        "miou_fp32": scores(expected.confusion).miou,
    }


def plain_masks(folder: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Function from images (B, H, W, 3) BGR to class ids (B, H, W) in eager PyTorch; not for ONNX models."""
    import torch

    spec, network = load_network(folder)

    def masks(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rgb = torch.from_numpy(images).permute(0, 3, 1, 2).flip(1)
        with torch.inference_mode():
            ids: NDArray[np.uint8] = network(spec.normalize(rgb)).argmax(1).to(torch.uint8).numpy()
        return ids

    return masks


def count_gflop(network: nn.Module, resolution: Resolution) -> float:
    """Billions of operations per image of (width, height); a multiply-add counts as two.

    Counts convolutions and matrix products, not batch norms, activations and interpolation. Moves ``network`` to the
    meta device, which discards its weights.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, resolution[1], resolution[0], device="meta"))
    return float(counter.get_total_flops()) / 1e9


def gpu_names() -> list[str]:
    """Names of all GPUs that PyTorch can use; none without it."""
    if find_spec("torch") is None:
        return []
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of the measured cases, followed by the errors of the others."""
    shown = [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    lines = ["| " + " | ".join(title for _, title, _ in shown) + " |", "| --- " * len(shown) + "|"]
    for row in rows:
        if "error" in row:
            continue
        cells = {key: "" if row.get(key) is None else form.format(row[key]) for key, _, form in shown}
        least = AGREEMENT_OF_INT8 if row["precision"] == "int8" else AGREEMENT
        if row.get("agreement", 1) < least:
            cells["agreement"] += f" (not the masks of fp32: at least {least} expected)"
        lines.append("| " + " | ".join(cells.values()) + " |")
    return "\n".join(
        [*lines, *(f"- {row['engine']} {row['precision']}: {row['error']}" for row in rows if "error" in row)]
    )
