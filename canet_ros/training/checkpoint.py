# SPDX-License-Identifier: Apache-2.0
"""Checkpoint of a training run: one file, written atomically, from which the run resumes exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from canet_ros.files import atomic_write
from canet_ros.model.model_folder import ModelError
from canet_ros.training.initialization import load_weights_file
from canet_ros.training.metrics import Scores

_START_OVER = "use another --out folder, or delete it to start over"


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes from step to step. Samples and learning rate depend on the epoch only."""

    network: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.GradScaler


def save_checkpoint(
    path: Path, identity: Mapping[str, Any], state: TrainingState, epochs: int, best: Scores | None
) -> None:
    """Write the state after ``epochs`` finished epochs, and the best scores so far.

    Args:
        identity: what distinguishes the run, in JSON types: configuration, classes, images.

    Raises:
        OSError: the file cannot be written; an existing checkpoint is unchanged.
    """
    content = {
        "identity": json.dumps(identity),
        "network": state.network.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "epoch": epochs,
        "best": None if best is None else {**asdict(best), "iou": best.iou.tolist()},
    }
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # a full disk; torch's message is a C++ backtrace
            raise OSError(error.__context__ or str(error).partition("\n")[0]) from error


def resume(path: Path, identity: Mapping[str, Any], state: TrainingState) -> tuple[int, Scores | None]:
    """Load a checkpoint into ``state``; return finished epochs and best scores, (0, None) without a checkpoint.

    Raises:
        ValueError: the checkpoint is of another run (the message names the differences), or it is damaged.
    """
    if not path.is_file():
        return 0, None
    try:
        content = load_weights_file(path)
    except ModelError as error:
        raise ValueError(f"{error}: {_START_OVER}") from error
    try:
        stored, now = json.loads(content["identity"]), json.loads(json.dumps(identity))
        differences = [
            f"{key} was {stored.get(key)!r}, is {now.get(key)!r}"
            for key in {**stored, **now}
            if key not in stored or key not in now or stored[key] != now[key]
        ]
        if not differences:
            state.network.load_state_dict(content["network"])
            state.ema.load_state_dict(content["ema"])
            state.optimizer.load_state_dict(content["optimizer"])
            state.scaler.load_state_dict(content["scaler"])
            best = content["best"] and Scores(**{**content["best"], "iou": np.array(content["best"]["iou"])})
            return int(content["epoch"]), best
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of canet train, or of another version: {_START_OVER}"
        ) from error
    raise ValueError(
        f"{path} was written with another configuration ({'; '.join(differences)}): {_START_OVER}"
    )
