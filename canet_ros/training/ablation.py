# SPDX-License-Identifier: Apache-2.0
"""What is feature cross attention worth? The same training with every fusion, several seeds each.

Networks of one seed start from the same numbers in all that they share, and see the same pictures in the same order,
for the same number of steps; what is measured is the averaged network after the last step, never a best epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.contact_sheet import SheetRow, contact_sheet
from canet_ros.inference.model_folder import ModelSpec, load_network
from canet_ros.inference.segmenter import Segmenter
from canet_ros.inference.visualization import color_lookup_table, overlay
from canet_ros.network import CANet, SegmentationNetwork
from canet_ros.network.fusion import FeatureCrossAttention
from canet_ros.opencv import map_colors, resize
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import LabelledImage
from canet_ros.training.evaluate import evaluate
from canet_ros.training.metrics import scores
from canet_ros.training.run_log import read_history
from canet_ros.training.train import network_input, train


@dataclass(frozen=True)
class AblationRun:
    """One training: a fusion, a seed, and the folder of its run."""

    fusion: str
    seed: int
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"


def train_runs(config: TrainingConfig, classes: ClassTable, runs: Sequence[AblationRun], device: str) -> None:
    """Train what is not trained yet; ``config`` decides all but fusion, seed and name."""
    for run in runs:
        ours = replace(
            config,
            name=run.folder.name,
            fusion=run.fusion,
            seed=run.seed,
            val_every=config.epochs,
        )
        if len(read_history(run.folder)) < config.epochs:
            train(ours, classes, run.folder, device)


def planned_runs(folder: Path, fusions: Sequence[str], seeds: Sequence[int]) -> list[AblationRun]:
    """Every fusion with every seed; all fusions of the first seed come first, so that an early end still compares."""
    return [
        AblationRun(fusion, seed, folder / f"{fusion}-seed{seed}") for seed in seeds for fusion in fusions
    ]


def measure_run(
    run: AblationRun, segmenter: Segmenter, splits: dict[str, list[LabelledImage]]
) -> dict[str, Any]:
    """mIoU and IoU per class of a run on every split; ``segmenter`` runs its model."""
    figures: dict[str, Any] = {"fusion": run.fusion, "seed": run.seed}
    for split, pictures in splits.items():
        found = scores(evaluate(segmenter, pictures).confusion)
        figures[split] = {"miou": found.miou, "iou": [float(iou) for iou in found.iou]}
    return figures


def summarize(runs: Sequence[dict[str, Any]], splits: Sequence[str]) -> list[dict[str, Any]]:
    """Per fusion and split: mean and sample standard deviation over the seeds, of the mIoU and of what it is more than
    that of the first fusion with the same seed, and the mean IoU per class; the deviation of one seed is None.
    """
    rows = []
    first = {run["seed"]: run for run in runs if run["fusion"] == runs[0]["fusion"]}
    for fusion in dict.fromkeys(run["fusion"] for run in runs):
        ours = [run for run in runs if run["fusion"] == fusion]
        row: dict[str, Any] = {"fusion": fusion, "seeds": len(ours)}
        for split in splits:
            mious = np.array([run[split]["miou"] for run in ours])
            gains = mious - np.array([first[run["seed"]][split]["miou"] for run in ours])
            spread = len(ours) > 1
            row[split] = {
                "miou_mean": float(mious.mean()),
                "miou_std": float(mious.std(ddof=1)) if spread else None,
                "gain_mean": float(gains.mean()),
                "gain_std": float(gains.std(ddof=1)) if spread else None,
                "iou_mean": np.array([run[split]["iou"] for run in ours]).mean(axis=0).tolist(),
            }
        rows.append(row)
    return rows


def channel_attention_spread(model: Path, pictures: Sequence[LabelledImage]) -> dict[str, float]:
    """How much FCA's channel map depends on the picture.

    Returns:
        ``between_pictures``: standard deviation of a channel's attention over the pictures, mean of all channels;
        ``between_channels``: standard deviation of the channels' mean attentions;
        ``saturated``: share of values below 0.05 or above 0.95.
    """
    spec, network = load_network(model)
    classes = len(spec.classes)
    found = np.stack([_attention(spec, network, picture.read(classes)[0])[1] for picture in pictures])
    return {
        "between_pictures": float(found.std(axis=0).mean()),
        "between_channels": float(found.mean(axis=0).std()),
        "saturated": float(((found < 0.05) | (found > 0.95)).mean()),
    }


def attention_sheet(model: Path, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) BGR uint8, each beside the overlay and the two maps of feature cross attention."""
    segmenter = Segmenter.load(model)
    spec, network = load_network(model)
    table = color_lookup_table(spec.classes, "bgr")
    rows = []
    for index, image in enumerate(images):
        where, what = _attention(spec, network, image)
        shown = (
            image,
            overlay(image, segmenter(image).mask, table, 0.6),
            _heat(where, image),
            _heat(what.reshape(8, -1), image),
        )
        span = f"where {where.min():.2f} to {where.max():.2f}, what {what.min():.2f} to {what.max():.2f}"
        rows.append(SheetRow(f"scene {index + 1}: {span}", shown))
    columns = ("image", "overlay", "spatial map", "channel map, one cell a channel")
    return contact_sheet(spec.name, "attention, dark 0 to bright 1", columns, rows, spec.classes)


def _attention(
    spec: ModelSpec, network: SegmentationNetwork, image: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Spatial map (h, w) at stride 8 and channel map (C,), both 0..1.

    Raises:
        ValueError: the model's fusion is not ``fca``.
    """
    fusion = network.eval().fusion if isinstance(network, CANet) else None
    if not isinstance(network, CANet) or not isinstance(fusion, FeatureCrossAttention):
        raise ValueError(f"{spec.name} has the fusion {spec.fusion}: only fca has both attention maps")
    with torch.inference_mode():
        spatial, context = network.branches(network_input(spec, image))
        where, what = fusion.spatial_map(spatial)[0, 0], fusion.channel_map(context)[0, :, 0, 0]
    return where.numpy(), what.numpy()


def _heat(attention: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values 0..1 (h, w) as colours at the size of ``image``."""
    levels = np.round(255 * attention).astype(np.uint8)
    heat = map_colors(levels, cv2.COLORMAP_VIRIDIS)
    size = (image.shape[1], image.shape[0])
    return resize(heat, size, cv2.INTER_NEAREST)
