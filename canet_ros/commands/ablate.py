# SPDX-License-Identifier: Apache-2.0
"""``canet ablate``: the same training with every fusion, with the results as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canet_ros.benchmark.engines import PLAIN, Case, measure_engines
from canet_ros.commands import add_force_argument, argument
from canet_ros.commands.loading import print_fallback_reasons
from canet_ros.commands.train import add_training_options, naming_flags, training_config
from canet_ros.files import require_writable, write_json, write_text
from canet_ros.model.model_folder import load_network, parse_resolution
from canet_ros.names import FUSIONS
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.training.ablation import (
    AblationRun,
    measure_run,
    planned_runs,
    summarize,
    train_runs,
)
from canet_ros.training.dataset import find_split


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
    parser.add_argument(
        "--latency-resolution",
        type=argument(parse_resolution),
        default=(1024, 512),
        metavar="WxH",
        help="input size for operations and latency (default: 1024x512)",
    )


def run(arguments: argparse.Namespace) -> int:
    config, classes = training_config(arguments, name="ablation")
    results_files = (arguments.out / name for name in ("ablation.json", "ablation.md"))
    require_writable(*results_files, replace=arguments.force)
    runs = planned_runs(arguments.out, arguments.fusions, arguments.seeds)
    with naming_flags():
        train_runs(config, classes, runs, arguments.device)
    splits = {"val": find_split(Path(config.data), "val")}
    if config.without:
        splits["left_out"] = find_split(Path(config.data), "train", only=config.without)
    measured = []
    for run in runs:
        segmenter = Segmenter.load(run.model)
        print_fallback_reasons(segmenter.engine)
        measured.append(measure_run(run, segmenter, splits))
    summary = summarize(measured, list(splits))
    _add_cost(summary, runs, arguments.latency_resolution)
    results: dict[str, Any] = {"classes": list(classes.names), "summary": summary, "runs": measured}
    write_json(arguments.out / "ablation.json", results)
    table = summary_table(summary, list(splits))
    write_text(arguments.out / "ablation.md", f"{table}\n")
    print(table)
    print(f"results: {arguments.out}")
    return 0


def _add_cost(
    summary: Sequence[dict[str, Any]], runs: Sequence[AblationRun], resolution: tuple[int, int]
) -> None:
    """Add parameters, operations and latency on the fastest engine, which do not depend on the seed."""
    models = {run.fusion: run.model for run in reversed(runs)}
    cases = [Case(models[row["fusion"]], "auto", "auto", "auto", resolution, 1) for row in summary]
    timed = [row for row in measure_engines(cases, rounds=20) if row["engine"] != PLAIN]
    for row, latency in zip(summary, timed):
        network = load_network(models[row["fusion"]])[1]
        row |= {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "gflop": latency["gflop"],
            "latency_ms": latency["median_ms"],
            "engine": f"{latency['engine']} {latency['precision']}",
            "latency_resolution": f"{resolution[0]}x{resolution[1]}",
        }


def summary_table(summary: Sequence[dict[str, Any]], splits: Sequence[str]) -> str:
    """Markdown table by fusion: mIoU, its difference to the first fusion in points, both ± deviation, and cost."""
    first = summary[0]["fusion"]
    heading = ["fusion"]
    for split in splits:
        heading += [f"mIoU, {_title(split)}", f"over {first}, points"]
    heading += ["seeds", "parameters", "GFLOP", "ms"]
    lines = [_markdown(heading), "| --- " * len(heading) + "|"]
    for row in summary:
        cells = [row["fusion"]]
        for split in splits:
            statistics = row[split]
            cells.append(_with_deviation(statistics["miou_mean"], statistics["miou_std"], ".4f"))
            gain = _with_deviation(statistics["gain_mean"], statistics["gain_std"], "+.2f", 100)
            cells.append("" if row["fusion"] == first else gain)
        cells += [str(row["seeds"]), f"{row['parameters'] / 1e6:.3f} M"]
        lines.append(_markdown([*cells, f"{row['gflop']:.2f}", f"{row['latency_ms']:.1f}"]))
    return "\n".join(lines)


def _with_deviation(mean: float, std: float | None, form: str, factor: float = 1) -> str:
    text = format(factor * mean, form)
    return text if std is None else f"{text} ± {format(factor * std, form.lstrip('+'))}"


def _title(split: str) -> str:
    return split.replace("_", " ")


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
