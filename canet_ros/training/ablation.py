# SPDX-License-Identifier: Apache-2.0
"""Ablation of the fusion: the same training with every fusion and several seeds.

Networks of one seed start from the same weights in all shared layers and see the same images in the same order for the
same number of steps. The averaged network after the last step is measured, not that of the best epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canet_ros.model.class_table import ClassTable
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import LabelledImage
from canet_ros.training.evaluate import evaluate
from canet_ros.training.metrics import scores
from canet_ros.training.run_log import read_history
from canet_ros.training.train import train


@dataclass(frozen=True)
class AblationRun:
    """One training run: its fusion, seed and folder."""

    fusion: str
    seed: int
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"


def train_run(config: TrainingConfig, classes: ClassTable, run: AblationRun, device: str) -> None:
    """Train a run unless it is complete; fusion, seed and name of ``config`` are replaced by those of the run."""
    name = run.folder.name
    config = replace(config, name=name, fusion=run.fusion, seed=run.seed, val_every=config.epochs)
    if len(read_history(run.folder)) < config.epochs:
        train(config, classes, run.folder, device)


def planned_runs(folder: Path, fusions: Sequence[str], seeds: Sequence[int]) -> list[AblationRun]:
    """Every fusion with every seed, ordered by seed, so that an interrupted ablation can still be compared."""
    return [
        AblationRun(fusion, seed, folder / f"{fusion}-seed{seed}") for seed in seeds for fusion in fusions
    ]


def measure_run(
    run: AblationRun, segmenter: Segmenter, splits: dict[str, list[LabelledImage]]
) -> dict[str, Any]:
    """mIoU and IoU per class of a run on every split; ``segmenter`` runs its model."""
    metrics: dict[str, Any] = {"fusion": run.fusion, "seed": run.seed}
    for split, images in splits.items():
        result = scores(evaluate(segmenter, images).confusion)
        metrics[split] = {"miou": result.miou, "iou": [float(iou) for iou in result.iou]}
    return metrics


def summarize(runs: Sequence[dict[str, Any]], splits: Sequence[str]) -> list[dict[str, Any]]:
    """Statistics over the seeds, per fusion and split.

    ``miou`` and ``gain``, the difference of the mIoU to the first fusion with the same seed, have a mean and a sample
    standard deviation (None for a single seed); ``iou_mean`` is the mean IoU per class.
    """
    rows = []
    first = {run["seed"]: run for run in runs if run["fusion"] == runs[0]["fusion"]}
    for fusion in dict.fromkeys(run["fusion"] for run in runs):
        of_fusion = [run for run in runs if run["fusion"] == fusion]
        row: dict[str, Any] = {"fusion": fusion, "seeds": len(of_fusion)}
        for split in splits:
            mious = np.array([run[split]["miou"] for run in of_fusion])
            gains = mious - np.array([first[run["seed"]][split]["miou"] for run in of_fusion])
            has_spread = len(of_fusion) > 1
            row[split] = {
                "miou_mean": float(mious.mean()),
                "miou_std": float(mious.std(ddof=1)) if has_spread else None,
                "gain_mean": float(gains.mean()),
                "gain_std": float(gains.std(ddof=1)) if has_spread else None,
                "iou_mean": np.array([run[split]["iou"] for run in of_fusion]).mean(axis=0).tolist(),
            }
        rows.append(row)
    return rows
