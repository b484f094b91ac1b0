# SPDX-License-Identifier: Apache-2.0
"""How a training run went: lines to compute with, TensorBoard to watch, a picture to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from canet_ros.files import write_text, written_beside

HISTORY_FILE = "history.jsonl"
CURVE_FILE = "curve.png"


class RunLog:
    """One entry an epoch, kept as ``history.jsonl``, as TensorBoard events and as the picture ``curve.png``.

    TensorBoard and Matplotlib belong to the extra ``training``; where they are missing, so are their files.

    Args:
        run_folder: where the files go; a log that is there already is carried on.
        epochs: finished epochs of the run; entries after them are of a killed run and are forgotten.
    """

    def __init__(self, run_folder: Path, epochs: int) -> None:
        self._folder = run_folder
        self._entries = read_history(run_folder)[:epochs]
        history = "".join(json.dumps(entry) + "\n" for entry in self._entries)
        write_text(run_folder / HISTORY_FILE, history)
        self._tensorboard = _tensorboard_writer(run_folder, epochs)

    def add(self, entry: dict[str, float]) -> None:
        """Add an epoch; ``entry`` has ``epoch``, counted from 1, and any figures."""
        self._entries.append(entry)
        history = "".join(json.dumps(entry) + "\n" for entry in self._entries)
        write_text(self._folder / HISTORY_FILE, history)
        if self._tensorboard is not None:
            for name, value in entry.items():
                if name != "epoch":
                    self._tensorboard.add_scalar(name, value, int(entry["epoch"]))
            self._tensorboard.flush()
        _draw_curve(self._entries, self._folder / CURVE_FILE)


def read_history(run_folder: Path) -> list[dict[str, float]]:
    """All entries of a run, of the first epoch first; none if there are none yet."""
    path = run_folder / HISTORY_FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _tensorboard_writer(run_folder: Path, epochs: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run_folder), purge_step=epochs + 1)  # type: ignore[no-untyped-call]


def _draw_curve(entries: list[dict[str, float]], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss_axis = figure.subplots()
    loss_axis.plot(
        [entry["epoch"] for entry in entries], [entry["loss"] for entry in entries], color="tab:gray"
    )
    loss_axis.set(xlabel="epoch", ylabel="loss")
    measured = [entry for entry in entries if "val_miou" in entry]
    miou_axis = loss_axis.twinx()
    miou_axis.plot([entry["epoch"] for entry in measured], [entry["val_miou"] for entry in measured], "o-")
    miou_axis.set(ylabel="mIoU on val")
    with written_beside(path) as new:
        figure.savefig(new, dpi=120)
