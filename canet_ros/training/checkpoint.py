# SPDX-License-Identifier: Apache-2.0
"""What a training run needs to go on where it stopped, in one file that is never half written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from canet_ros.training.metrics import Scores


@dataclass(frozen=True)
class TrainingState:
    """All that changes from step to step; samples and learning rate follow from the epoch alone."""

    network: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.GradScaler


def save_checkpoint(path: Path, config: str, state: TrainingState, epochs: int, best: Scores | None) -> None:
    """Write the state after ``epochs`` finished epochs, and the best scores so far."""
    content = {
        "config": config,
        "network": state.network.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "epoch": epochs,
        "best": None
        if best is None
        else {"miou": best.miou, "pixel_accuracy": best.pixel_accuracy, "iou": best.iou.tolist()},
    }
    partial = path.with_name(f"{path.name}.partial")
    torch.save(content, partial)
    partial.replace(path)


def resume(path: Path, config: str, state: TrainingState) -> tuple[int, Scores | None]:
    """Bring ``state`` to where the checkpoint left it; finished epochs and best scores, (0, None) without one.

    Raises:
        ValueError: the checkpoint is of another configuration.
    """
    if not path.is_file():
        return 0, None
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["config"] != config:
        raise ValueError(
            f"{path} is of another configuration: use another folder, or delete it to start anew"
        )
    state.network.load_state_dict(content["network"])
    state.ema.load_state_dict(content["ema"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scaler.load_state_dict(content["scaler"])
    best = content["best"]
    if best is not None:
        best = Scores(best["miou"], best["pixel_accuracy"], np.array(best["iou"]))
    return int(content["epoch"]), best
