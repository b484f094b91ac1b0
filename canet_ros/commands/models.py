# SPDX-License-Identifier: Apache-2.0
"""``canet models``: list the installed models: classes, input, size, metrics, licence, folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from canet_ros.commands import add_force_argument
from canet_ros.files import require_writable, write_json
from canet_ros.model.model_folder import ModelError, available_models, load_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the list as JSON")
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    require_writable(arguments.json, replace=arguments.force)
    rows = [_row(name, folder) for name, folder in available_models().items()]
    if arguments.json:
        write_json(arguments.json, rows)
    if not rows:
        raise ModelError("no models are installed; create one with canet train or canet import")
    print("\n\n".join(map(_text, rows)))
    return 0


def _row(name: str, folder: Path) -> dict[str, Any]:
    size_mb = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
    row: dict[str, Any] = {"name": name, "folder": str(folder), "size_mb": round(size_mb, 1)}
    try:
        spec = load_spec(folder)
    except ModelError as error:  # list the other models anyway
        return {**row, "error": str(error)}
    return {
        **row,
        "architecture": spec.architecture,
        "backbone": spec.backbone,
        "classes": list(spec.classes.names),
        "resolution": f"{spec.resolution[0]}x{spec.resolution[1]}",
        "metrics": {key: value for key, value in spec.metrics.items() if isinstance(value, (int, float))},
        "licence": str(spec.training.get("data_licence") or "unknown"),
    }


def _text(row: dict[str, Any]) -> str:
    head = f"{row['name']}  ({row['size_mb']:.0f} MB)"
    if "error" in row:
        return f"{head}\n  broken: {row['error']}"
    metrics = ", ".join(f"{key} {value:.4g}" for key, value in row["metrics"].items()) or "none"
    return "\n".join(
        (
            head,
            f"  network  {', '.join(filter(None, (row['architecture'], row['backbone'])))}, input {row['resolution']}",
            f"  classes  {len(row['classes'])}: {', '.join(row['classes'])}",
            f"  metrics  {metrics}",
            f"  licence  {row['licence']}",
            f"  folder   {row['folder']}",
        )
    )
