# SPDX-License-Identifier: Apache-2.0
"""Log of a training run: JSON lines and a plot of the learning curve."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from canet_ros.files import write_text
from canet_ros.hints import optional_import_problem, pip_install

HISTORY_FILE = "history.jsonl"
CURVE_FILE = "curve.png"


class RunLog:
    """One entry per epoch in ``history.jsonl``, drawn as ``curve.png`` with Matplotlib of the extra ``training``.

    Args:
        run_folder: folder of the files; an existing log is continued.
        epochs: finished epochs of the run; later entries, of a killed run, are deleted.
    """

    def __init__(self, run_folder: Path, epochs: int) -> None:
        self._folder = run_folder
        self._entries = read_history(run_folder)[:epochs]
        self._write_history()
        self._plot: Callable[[list[dict[str, float]], Path], None] | None
        try:
            from canet_ros.training.plots import plot_learning_curve
        except (Exception, SystemExit) as error:
            problem = optional_import_problem("matplotlib", error)
            print(f"{CURVE_FILE} is not plotted: {problem}: {pip_install('matplotlib')}", file=sys.stderr)
            self._plot = None
        else:
            self._plot = plot_learning_curve

    def add(self, entry: dict[str, float]) -> None:
        """Add an epoch; ``entry`` has ``epoch``, counted from 1, and any metrics."""
        self._entries.append(entry)
        self._write_history()
        if self._plot is not None:
            self._plot(self._entries, self._folder / CURVE_FILE)

    def _write_history(self) -> None:
        history = "".join(json.dumps(entry) + "\n" for entry in self._entries)
        write_text(self._folder / HISTORY_FILE, history)


def read_history(run_folder: Path) -> list[dict[str, float]]:
    """All entries of a run, in the order of the epochs; empty if there are none yet."""
    path = run_folder / HISTORY_FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
