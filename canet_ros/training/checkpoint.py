# SPDX-License-Identifier: Apache-2.0
"""What a training run needs to go on where it stopped, in one file that is never half written."""

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
from canet_ros.inference.model_folder import ModelError
from canet_ros.training.initialization import load_weights_file
from canet_ros.training.metrics import Scores

_START_ANEW = "use another --out folder, or delete it to start anew"


@dataclass(frozen=True)
class TrainingState:
    """All that changes from step to step; samples and learning rate follow from the epoch alone."""

    network: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.GradScaler


def save_checkpoint(
    path: Path, identity: Mapping[str, Any], state: TrainingState, epochs: int, best: Scores | None
) -> None:
    """Write the state after ``epochs`` finished epochs, and the best scores so far.

    Args:
        identity: what makes this run this run, as JSON has it: configuration, classes, pictures.

    Raises:
        OSError: it cannot be written; what was there stays.
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
    with atomic_write(path) as new:
        try:
            torch.save(content, new)
        except RuntimeError as error:  # of a full disk, with a page of C++
            raise OSError(error.__context__ or str(error).partition("\n")[0]) from error


def resume(path: Path, identity: Mapping[str, Any], state: TrainingState) -> tuple[int, Scores | None]:
    """Bring ``state`` to where the checkpoint left it; finished epochs and best scores, (0, None) without one.

    Raises:
        ValueError: the checkpoint is of another run, and what differs; or it is damaged, or no checkpoint.
    """
    if not path.is_file():
        return 0, None
    try:
        content = load_weights_file(path)
    except ModelError as error:
        raise ValueError(f"{error}: {_START_ANEW}") from error
    try:
        differences = _differences(json.loads(content["identity"]), json.loads(json.dumps(identity)))
        if not differences:
            state.network.load_state_dict(content["network"])
            state.ema.load_state_dict(content["ema"])
            state.optimizer.load_state_dict(content["optimizer"])
            state.scaler.load_state_dict(content["scaler"])
            best = content["best"] and Scores(**{**content["best"], "iou": np.array(content["best"]["iou"])})
            return int(content["epoch"]), best
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no checkpoint of canet train, or of another version: {_START_ANEW}"
        ) from error
    raise ValueError(f"{path} is of another configuration ({'; '.join(differences)}): {_START_ANEW}")


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [key for key in {**there, **now} if key not in there or key not in now or there[key] != now[key]]
    found = [f"{key} was {there.get(key)!r}, is {now.get(key)!r}" for key in names if key != "classes"]
    if "classes" in names:
        old, new = there.get("classes", []), now["classes"]
        if len(old) != len(new):
            found.append(f"there were {len(old)} classes, there are {len(new)}")
        found += [f"class {i} was {a!r}, is {b!r}" for i, (a, b) in enumerate(zip(old, new)) if a != b][:1]
    return found
