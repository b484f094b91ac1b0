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

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import ModelSpec, load_network
from canet_ros.network import CANet, SegmentationNetwork
from canet_ros.network.fusion import FeatureCrossAttention
from canet_ros.opencv import map_colors, resize
from canet_ros.pipeline.contact_sheet import SheetRow, contact_sheet
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, overlay
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import LabelledImage
from canet_ros.training.evaluate import evaluate
from canet_ros.training.metrics import scores
from canet_ros.training.run_log import read_history
from canet_ros.training.train import network_input, train


@dataclass(frozen=True)
class AblationRun:
    """One training run: its fusion, seed and folder."""

    fusion: str
    seed: int
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"


def train_runs(config: TrainingConfig, classes: ClassTable, runs: Sequence[AblationRun], device: str) -> None:
    """Train the runs that are not complete; fusion, seed and name of ``config`` are replaced by those of the run."""
    for run in runs:
        run_config = replace(
            config,
            name=run.folder.name,
            fusion=run.fusion,
            seed=run.seed,
            val_every=config.epochs,
        )
        if len(read_history(run.folder)) < config.epochs:
            train(run_config, classes, run.folder, device)


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


def channel_attention_spread(model: Path, images: Sequence[LabelledImage]) -> dict[str, float]:
    """How much FCA's channel map depends on the image.

    Returns:
        ``between_pictures``: standard deviation of a channel's attention over the images, mean of all channels;
        ``between_channels``: standard deviation of the channels' mean attentions;
        ``saturated``: share of values below 0.05 or above 0.95.
    """
    spec, network = load_network(model)
    classes = len(spec.classes)
    attention = np.stack([_attention(spec, network, image.read(classes)[0])[1] for image in images])
    return {
        "between_pictures": float(attention.std(axis=0).mean()),
        "between_channels": float(attention.mean(axis=0).std()),
        "saturated": float(((attention < 0.05) | (attention > 0.95)).mean()),
    }


def attention_sheet(model: Path, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images (H, W, 3) BGR uint8 with their overlay and both maps of feature cross attention, one row each."""
    segmenter = Segmenter.load(model)
    spec, network = load_network(model)
    table = color_lookup_table(spec.classes, "bgr")
    rows = []
    for index, image in enumerate(images):
        spatial, channel = _attention(spec, network, image)
        cells = (
            image,
            overlay(image, segmenter(image).mask, table, 0.6),
            _heat_map(spatial, image),
            _heat_map(channel.reshape(8, -1), image),
        )
        ranges = (
            f"{name} {values.min():.2f} to {values.max():.2f}"
            for name, values in (("spatial", spatial), ("channel", channel))
        )
        rows.append(SheetRow(f"scene {index + 1}: {', '.join(ranges)}", cells))
    columns = ("image", "overlay", "spatial map", "channel map, one cell per channel")
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
        spatial_map, channel_map = fusion.spatial_map(spatial)[0, 0], fusion.channel_map(context)[0, :, 0, 0]
    return spatial_map.numpy(), channel_map.numpy()


def _heat_map(attention: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values 0..1 (h, w) as colours at the size of ``image``."""
    levels = np.round(255 * attention).astype(np.uint8)
    heat = map_colors(levels, cv2.COLORMAP_VIRIDIS)
    size = (image.shape[1], image.shape[0])
    return resize(heat, size, cv2.INTER_NEAREST)
