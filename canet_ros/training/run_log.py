# SPDX-License-Identifier: Apache-2.0
"""Log of a training run: JSON lines and a plot of the learning curve."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from canet_ros.files import atomic_write, write_text
from canet_ros.hints import optional_import_problem, pip_install

HISTORY_FILE = "history.jsonl"
CURVE_FILE = "curve.png"


def read_history(run_folder: Path) -> list[dict[str, float]]:
    """The entries of a run, one per epoch; empty if there are none yet."""
    path = run_folder / HISTORY_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write_history(run_folder: Path, entries: Sequence[dict[str, float]]) -> None:
    """Write the entries, which have ``epoch`` from 1 and any metrics, and their curve if Matplotlib is installed."""
    write_text(run_folder / HISTORY_FILE, "".join(json.dumps(entry) + "\n" for entry in entries))
    try:
        from matplotlib.figure import Figure
    except (Exception, SystemExit) as error:
        if len(entries) == 1:
            problem = optional_import_problem("matplotlib", error)
            print(f"{CURVE_FILE} is not plotted: {problem}: {pip_install('matplotlib')}", file=sys.stderr)
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, axis, style in (("loss", axes, "tab:gray"), ("val_miou", axes.twinx(), "o-")):
        measured = [entry for entry in entries if key in entry]
        axis.plot([entry["epoch"] for entry in measured], [entry[key] for entry in measured], style)
        axis.set(xlabel="epoch", ylabel=key.replace("val_miou", "mIoU on val"))
    with atomic_write(run_folder / CURVE_FILE) as temporary:
        figure.savefig(temporary, dpi=120)
