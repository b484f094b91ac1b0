# SPDX-License-Identifier: Apache-2.0
"""``canet ablate``: the same training with every fusion, with the results as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canet_ros.commands import add_force_argument
from canet_ros.commands.loading import print_fallback_reasons
from canet_ros.commands.train import add_training_options, naming_flags, training_config
from canet_ros.files import require_writable, write_json, write_text
from canet_ros.names import FUSIONS
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.training.ablation import measure_run, planned_runs, summarize, train_run
from canet_ros.training.dataset import find_split, of_drives


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_options(parser, excluded=("name", "fusion", "seed", "val_every"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the results")
    add_force_argument(parser)
    parser.add_argument(
        "--fusions", nargs="+", default=["fca", "concat", "se", "cbam"], choices=tuple(FUSIONS)
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="one run each (default: 0 1 2)"
    )


def run(arguments: argparse.Namespace) -> int:
    config, classes = training_config(arguments, name="ablation")
    results_files = (arguments.out / name for name in ("ablation.json", "ablation.md"))
    require_writable(*results_files, replace=arguments.force)
    runs = planned_runs(arguments.out, arguments.fusions, arguments.seeds)
    with naming_flags():
        for planned in runs:
            train_run(config, classes, planned, arguments.device)
    splits = {"val": find_split(Path(config.data), "val")}
    if config.without:
        splits["held_out"] = of_drives(find_split(Path(config.data), "train"), config.without)
    measured = []
    for finished in runs:
        segmenter = Segmenter.load(finished.model)
        print_fallback_reasons(segmenter.engine)
        measured.append(measure_run(finished, segmenter, splits))
    summary = summarize(measured, list(splits))
    results: dict[str, Any] = {"classes": list(classes.names), "summary": summary, "runs": measured}
    write_json(arguments.out / "ablation.json", results)
    table = summary_table(summary, list(splits))
    write_text(arguments.out / "ablation.md", f"{table}\n")
    print(f"{table}\nresults: {arguments.out}")
    return 0


def summary_table(summary: Sequence[dict[str, Any]], splits: Sequence[str]) -> str:
    """Markdown table by fusion: mIoU and its difference to the first fusion in points, both ± deviation."""
    rows = [["fusion", "seeds"], ["---", "---"], *([row["fusion"], str(row["seeds"])] for row in summary)]
    for split in splits:
        rows[0] += [f"mIoU, {split.replace('_', ' ')}", f"over {summary[0]['fusion']}, points"]
        rows[1] += ["---", "---"]
        for cells, row in zip(rows[2:], summary):
            of_split = row[split]
            cells.append(_with_deviation(of_split["miou_mean"], of_split["miou_std"], ".4f"))
            gain = _with_deviation(of_split["gain_mean"], of_split["gain_std"], "+.2f", 100)
            cells.append("" if row is summary[0] else gain)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _with_deviation(mean: float, std: float | None, form: str, factor: float = 1) -> str:
    text = format(factor * mean, form)
    return text if std is None else f"{text} ± {format(factor * std, form.lstrip('+'))}"
