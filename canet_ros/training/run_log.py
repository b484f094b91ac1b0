# SPDX-License-Identifier: Apache-2.0
"""Log of a training run: JSON lines, TensorBoard events and a plot of the learning curve."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

from canet_ros.files import atomic_write, write_text
from canet_ros.hints import optional_import_problem

HISTORY_FILE = "history.jsonl"
CURVE_FILE = "curve.png"


class RunLog:
    """One entry per epoch, in ``history.jsonl``, TensorBoard events and the plot ``curve.png``.

    TensorBoard and Matplotlib belong to the extra ``training``; without them, their files are not written.

    Args:
        run_folder: folder of the files; an existing log is continued.
        epochs: finished epochs of the run; later entries, of a killed run, are deleted.
    """

    def __init__(self, run_folder: Path, epochs: int) -> None:
        self._folder = run_folder
        self._entries = read_history(run_folder)[:epochs]
        history = "".join(json.dumps(entry) + "\n" for entry in self._entries)
        write_text(run_folder / HISTORY_FILE, history)
        self._tensorboard = _tensorboard_writer(run_folder, epochs)

    def add(self, entry: dict[str, float]) -> None:
        """Add an epoch; ``entry`` has ``epoch``, counted from 1, and any metrics."""
        self._entries.append(entry)
        history = "".join(json.dumps(entry) + "\n" for entry in self._entries)
        write_text(self._folder / HISTORY_FILE, history)
        if self._tensorboard is not None:
            try:
                for name, value in entry.items():
                    if name != "epoch":
                        self._tensorboard.add_scalar(name, value, int(entry["epoch"]))
                self._tensorboard.flush()
            except OSError as error:  # a full disk; the checkpoint raises an error of its own
                self._tensorboard = None
                _warn_no_events(error)
        _draw_curve(self._entries, self._folder / CURVE_FILE)


def read_history(run_folder: Path) -> list[dict[str, float]]:
    """All entries of a run, in the order of the epochs; empty if there are none yet."""
    path = run_folder / HISTORY_FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _tensorboard_writer(run_folder: Path, epochs: int) -> Any | None:
    if "tensorboard" in _missing():
        return None
    from torch.utils.tensorboard import SummaryWriter

    original = threading.excepthook
    # A write error ends TensorBoard's thread, whose traceback is redundant: the next call raises the same error.
    threading.excepthook = lambda args: (
        None if type(args.thread).__name__ == "_AsyncWriterThread" else original(args)
    )
    try:
        return SummaryWriter(str(run_folder), purge_step=epochs + 1)  # type: ignore[no-untyped-call]
    except OSError as error:
        _warn_no_events(error)
        return None


def _warn_no_events(error: OSError) -> None:
    print(f"TensorBoard events stop here: {error.strerror or error}", file=sys.stderr)


@functools.cache
def _missing() -> dict[str, str]:
    """Which of the optional packages cannot be imported, and why; prints those that are installed but broken."""
    missing = {}
    for package, module in (("tensorboard", "torch.utils.tensorboard"), ("matplotlib", "matplotlib.figure")):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            missing[package] = optional_import_problem(package, error)
            if not isinstance(error, ModuleNotFoundError):
                print(missing[package], file=sys.stderr)
    return missing


def _draw_curve(entries: list[dict[str, float]], path: Path) -> None:
    if "matplotlib" in _missing():
        return
    from matplotlib.figure import Figure

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
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
