# SPDX-License-Identifier: Apache-2.0
"""``canet benchmark --report``: all measurements of a device, written as a Markdown page and JSON.

Each step is a process of its own with a time limit, so a step that fails or crashes does not end the others.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from canet_ros.benchmark.engines import gpu_names, table
from canet_ros.demo.processes import ChildProcess, stop
from canet_ros.files import write_json, write_text
from canet_ros.launching.transport import transport_environment, unused_domain_id
from canet_ros.machine import describe_benchmark_machine
from canet_ros.names import ENGINES, PRECISIONS
from canet_ros.simulation import write_scenes

SIZES = ("480x360", "1024x512", "1280x720")
SCENES = {"train": 12, "val": 4}  # synthetic images: to train on, and to compare engines on
REPEATED = 2  # repetitions of the training images in an epoch


@dataclass(frozen=True)
class Step:
    """One measurement: arguments of ``canet``, and the JSON file that they write (of JSON lines, the last counts)."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    figures: Path | None = None


def planned_steps(model: str, device: str, scratch: Path, minutes: float) -> list[Step]:
    """The measurements; their time limits add up to about ``minutes``."""

    def step(name: str, share: float, arguments: Sequence[str], file: Path | None = None) -> Step:
        return Step(name, tuple(arguments), share * minutes * 60, file)

    def engines(engine: str, size: str, batch: str, share: float, *more: str) -> Step:
        file = scratch / f"{engine}-{size}-{batch}.json"
        where = ("--model", model, "--device", device, "--resolution", size, "--batch", batch)
        which = ("--engine", engine, "--precision", *(("auto",) if engine == "auto" else PRECISIONS))
        # A third of the time for the rounds, the rest to load, compile and compare.
        rounds = ("--rounds", "10", "--minutes", f"{share * minutes / 3:.2g}")
        arguments = ("benchmark", *where, *which, *rounds, "--json", str(file), *more)
        return step(f"{engine}, {size}, batch {batch}", share, arguments, file)

    data = ("--data", str(scratch / "scenes"))
    node, doctor = scratch / "node.json", scratch / "doctor.json"
    plain_device = device if device != "auto" else "cuda" if gpu_names() else "cpu"  # training has no auto
    train = (
        *("train", *data, "--name", "throughput", "--out", str(scratch / "run"), "--device", plain_device),
        # The second epoch counts: the first waits for processes, kernels and memory.
        *("--epochs", "2", "--val-every", "9", "--extra-data", f"{scratch / 'scenes' / 'train'}:{REPEATED}"),
    )
    tensorrt = ("--engine", "tensorrt", "--precision", "fp16")
    small = ("--model", model, "--resolution", SIZES[0])
    return [
        step("doctor", 0.08, ("doctor", "--json", str(doctor)), doctor),
        step("int8 calibration", 0.08, ("export", *small, "--calibrate", "--pictures", "20")),
        step("TensorRT build", 0.14, ("export", *small, *tensorrt)),
        *(engines(engine, SIZES[0], "1", 0.06, *data) for engine in ENGINES),
        *(engines(engine, size, "1", 0.03) for size in SIZES[1:] for engine in ENGINES),
        *(engines("auto", size, "4", 0.03) for size in SIZES[:2]),
        step("node over DDS", 0.08, ("benchmark", *small, "--node", "--json", str(node)), node),
        step("training", 0.08, train, scratch / "run" / "history.jsonl"),
    ]


def measure_everything(model: str, device: str, out: Path, minutes: float) -> dict[str, Any]:
    """Run all steps; writes ``report.json`` and ``report.md`` into ``out`` after each step.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Returns:
        The machine, and per step its seconds, figures and error.
    """
    scratch = out / "steps"
    shutil.rmtree(scratch, ignore_errors=True)
    for split, count in SCENES.items():
        write_scenes(scratch / "scenes" / split, count, first_seed=97000)
    machine = {**describe_benchmark_machine(), "gpus": gpu_names()}
    report: dict[str, Any] = {"machine": machine, "model": model, "device": device, "steps": []}
    environment = {
        **transport_environment(),
        "ROS_DOMAIN_ID": str(unused_domain_id()),
        # An empty cache, so that building engines is measured.
        "CANET_ROS_CACHE": str(scratch / "cache"),
    }
    steps = planned_steps(model, device, scratch, minutes)
    end_s = time.monotonic() + minutes * 60
    with tqdm(steps, desc="report", unit="step") as bar:
        for done, planned in enumerate(bar):
            step = replace(planned, limit_s=limit_s(steps[done:], end_s - time.monotonic()))
            bar.set_description(step.name)
            log = scratch / f"{step.name.replace(' ', '_').replace(',', '')}.log"
            report["steps"].append(run_step(step, environment, log))
            write_json(out / "report.json", report)
            write_text(out / "report.md", page(report))
    for folder in ("cache", "run", "scenes"):  # a hundred megabytes
        shutil.rmtree(scratch / folder, ignore_errors=True)
    return report


def limit_s(steps: Sequence[Step], left_s: float) -> float:
    """Time limit of the first remaining step: as planned, plus its share of the time that earlier steps left over."""
    return steps[0].limit_s * max(1.0, left_s / sum(step.limit_s for step in steps))


def run_step(step: Step, environment: dict[str, str], log: Path) -> dict[str, Any]:
    """Run one step until its limit; return its duration, figures and, if it failed, ``error``."""
    start_s = time.monotonic()
    command = [sys.executable, "-m", "canet_ros.cli", *step.arguments]
    with ChildProcess(step.name, command, environment, log) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(step.limit_s)
        late = process.status() is None
        stop([process], grace_s=20)  # the demo and the benchmark end their own processes first
    found: dict[str, Any] = {
        "name": step.name,
        "command": " ".join(("canet", *step.arguments)),
        "seconds": round(time.monotonic() - start_s, 1),
    }
    if late:
        found["error"] = f"not finished within {step.limit_s:.0f} s: increase --minutes"
    elif status := process.status():
        last_line = (process.output().strip().splitlines() or [f"exit status {status}"])[-1]
        found["error"] = f"ended by {signal.Signals(-status).name}" if status < 0 else last_line
    if step.figures and step.figures.is_file():
        text = step.figures.read_text(encoding="utf-8")
        lines = text.splitlines()[-1:] if step.figures.suffix == ".jsonl" else [text]
        found["figures"] = json.loads(lines[0]) if lines else {}
    return found


def page(report: dict[str, Any]) -> str:
    """The report in Markdown, to be pasted into an issue."""
    machine = report["machine"]
    lines = [f"# {report['model']} on {machine['processor']}", ""]
    for key, value in machine.items():
        if isinstance(value, dict):
            value = [f"{name} {version}" for name, version in value.items()]
        lines.append(f"- {key}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    lines += ["", "| step | s | |", "| --- " * 3 + "|"]
    for step in report["steps"]:
        lines.append(f"| {step['name']} | {step['seconds']:.0f} | {step.get('error', '')} |")
    for step in report["steps"]:
        figures = step.get("figures", {})
        if "findings" in figures:
            lines += ["", "## Doctor", ""]
            lines += [f"- {f['verdict']}: {f['subject']}: {f['text']}" for f in figures["findings"]]
        if "engines" in figures:
            lines += ["", f"## {step['name'].capitalize()}", "", table(figures["engines"])]
        if "epoch" in figures:
            images_per_s = SCENES["train"] * (1 + REPEATED) / figures["seconds"]
            lines += ["", "## Training", "", f"{images_per_s:.1f} images per second"]
        if "node" in figures:
            lines += ["", "## Node", "", "```json", json.dumps(figures["node"], indent=2), "```"]
    return "\n".join(lines) + "\n"
