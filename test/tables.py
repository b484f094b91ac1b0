# SPDX-License-Identifier: Apache-2.0
"""Tables of the documentation, made from the code and from docs/data/.

A page marks the place with ``<!-- table: NAME ARGUMENT... -->`` and ``<!-- end -->``; ``make generated`` fills it.
docs/data/ holds what ``canet benchmark --json`` and ``canet evaluate --json`` wrote.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from canet_ros.cli import COMMANDS
from canet_ros.launching.arguments import DEMO_ARGUMENTS, OWN_ARGUMENTS, Argument
from canet_ros.launching.parameter_spec import ParameterSpec
from canet_ros.launching.parameter_table import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "data"
MARKED = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
CANET = "canet-mobilenet_v2-camvid"
TITLES = {
    CANET: "CANet",
    "canet_lite-mobilenet_v2-camvid": "CANet-Lite",
    "canet_lite-efficientvit_b0-camvid": "CANet-Lite, EfficientViT-B0",
}
PROCESSORS = ("benchmark-epyc", "benchmark-xeon")
_TYPES = {str: "string", bool: "bool", int: "int", float: "double"}


def with_tables(page: Path) -> str:
    """The page with its tables filled."""

    def filled(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        return f"{match[1]}\n{TABLES[name](*arguments)}\n\n{match[3]}"

    return MARKED.sub(filled, page.read_text())


def described(spec: ParameterSpec) -> str:
    limits = ", ".join(spec.choices) or spec.bounds
    return f"{spec.description} ({limits})" if limits else spec.description


def command_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Parsers of all subcommands, also of those of ``canet labels``."""
    for name in COMMANDS:
        parser = argparse.ArgumentParser(prog=f"canet {name}", add_help=False)
        importlib.import_module(f"canet_ros.commands.{name.replace('-', '_')}").add_arguments(parser)
        nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not nested:
            yield COMMANDS[name], parser
        for action in nested:
            for choice in action._choices_actions:
                yield choice.help or "", action.choices[choice.dest]


def _parameters() -> str:
    rows = [
        (f"`{s.name}`", _type(s), f"`{s.default_text or _EMPTY}`", _escaped(described(s)), _changes(s))
        for s in PARAMETERS
    ]
    return _table(("Parameter", "Type", "Default", "Description", "Changes"), rows)


_EMPTY = '""'


def _type(spec: ParameterSpec) -> str:
    """As in the documentation of Nav2."""
    if isinstance(spec.default, tuple):
        return f"{_TYPES[type(spec.default[0])]}[]"
    return _TYPES[type(spec.default)]


def _changes(spec: ParameterSpec) -> str:
    if spec.at_start:
        return "start"
    return "any time" if spec.live else "unconfigured" if spec.needs_cleanup else "inactive"


def _launch_arguments(arguments: Sequence[Argument]) -> str:
    rows = []
    for argument in arguments:
        choices = f" ({', '.join(argument.choices)})" if len(argument.choices) > 4 else ""
        default = f"that of `{argument.other_name}`" if argument.other_name else _code(argument.default)
        rows.append((f"`{argument.name}`", default, _escaped(argument.description + choices)))
    return _table(("Argument", "Default", "Description"), rows)


def _commands() -> str:
    return "\n\n".join(_command(summary, parser) for summary, parser in command_parsers())


def _command(summary: str, parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog)
    rows = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        text = formatter._expand_help(action) if action.help else ""
        text, default = re.fullmatch(r"(.*?)(?: \(default: (.*)\))?", text, re.DOTALL).groups()
        if action.choices and not action.metavar:
            text = f"{text} ({', '.join(map(str, action.choices))})" if text else ", ".join(action.choices)
        if action.option_strings and action.required:
            default = "required"
        rows.append((f"`{_usage(action)}`", _escaped(default or ""), _escaped(text[:1].upper() + text[1:])))
    table = _table(("Argument", "Default", "Description"), rows)
    return f"## {parser.prog}\n\n{summary[0].upper()}{summary[1:]}.\n\n{table}"


def _usage(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = {0: "", "?": f"[{metavar}]", "+": f"{metavar} ..."}.get(action.nargs, metavar)
    return " ".join(filter(None, (", ".join(action.option_strings), value)))


def _speed() -> str:
    """Milliseconds per image, by network and engine; a column for each processor."""
    in_openvino = [(model, "openvino", precision) for model in TITLES for precision in ("bf16", "int8")]
    engines = {"plain PyTorch": "PyTorch", "openvino": "OpenVINO"}
    measured = [_read(name) for name in PROCESSORS]
    ms = [{(r["model"], r["engine"], r["precision"]): r["median_ms"] for r in m["engines"]} for m in measured]
    rows = [
        (
            f"{TITLES[model]}, {engines[engine]} {precision}",
            *(_figure(of_processor.get((model, engine, precision)), 0) for of_processor in ms),
            "not measured",
        )
        for model, engine, precision in ((CANET, "plain PyTorch", "fp32"), *in_openvino)
    ]
    return _table(("", *(_processor(m["machine"]) for m in measured), "NVIDIA GPU, Jetson"), rows)


def _accuracy() -> str:
    """Mean IoU of the shipped models, and of networks trained without a drive on that drive."""
    held_out = {(r["architecture"], r["drive"]): r["miou"] for r in _read("held-out")}
    rows = [
        [
            f"`{model}`",
            *(_figure(held_out.get((title, drive))) for drive in ("0006R0", "0001TP")),
            *(_figure(_read(f"{model}/{split}")["miou"]) for split in ("val", "synthetic")),
        ]
        for model, title in TITLES.items()
    ]
    header = (
        "Model",
        "Held-out drive 0006R0",
        "Held-out drive 0001TP",
        "Validation split",
        "Synthetic streets",
    )
    return _table(header, rows)


def _held_out(model: str = "") -> str:
    rows = [
        (
            r["architecture"],
            r["data"],
            f"{r['drive']}, {r['images']} images",
            _figure(r["miou"]),
            _figure(r["val_miou"]),
        )
        for r in _read("held-out")
        if not model or r["architecture"] == TITLES[model]
    ]
    return _table(("Network", "Trained on", "Held-out drive", "mIoU there", "mIoU on `val`"), rows)


def _evaluated(*models: str) -> str:
    """Every evaluation of these models."""
    splits = {
        "val": "CamVid `val`, 480x360",
        "val-576x320": "`val`, cropped, 576x320",
        "val-832x256": "`val`, cropped, 832x256",
        "synthetic": "60 synthetic streets, 480x360",
    }
    rows = [[text, *(f"{_figure(_read(f'{m}/{s}')['miou'])}" for m in models)] for s, text in splits.items()]
    return _table(["mIoU", *(TITLES[model] for model in models)], rows)


def _iou(*models: str) -> str:
    """IoU of each class on ``val``."""
    figures = [_read(f"{model}/val") for model in models]
    rows = [[name, *(_figure(f["iou"][name], 2) for f in figures)] for name in figures[0]["iou"]]
    rows.append(["mean", *(_figure(f["miou"], 2) for f in figures)])
    return _table(["Class", *(TITLES[model] for model in models)], rows)


def _calibration() -> str:
    """Temperature and calibration error on ``val``."""
    figures = {title: _read(f"{model}/val") for model, title in TITLES.items()}
    rows = [(t, f"{f['temperature']:.2f}", _figure(f["calibration_error"])) for t, f in figures.items()]
    return _table(("Model", "Temperature", "Calibration error on `val`"), rows)


def _engines(name: str) -> str:
    """What ``canet benchmark`` measured on one machine."""
    rows = []
    for row in _read(name)["engines"]:
        figures = (
            f"{row['median_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['fps']:.1f}",
            f"{row['gflops']:.0f}",
        )
        rows.append(
            (TITLES[row["model"]], row["engine"], row["precision"], *figures, f"{row['over_plain']:.2f}")
        )
    return _table(("Network", "Engine", "Precision", "ms", "p95", "FPS", "GFLOP/s", "vs. plain"), rows)


def _read(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())


def _processor(machine: dict[str, Any]) -> str:
    instructions = machine["instructions"]
    text = (
        "AMX" if "amx_int8" in instructions else "AVX-512 BF16" if "avx512_bf16" in instructions else "AVX2"
    )
    return f"{machine['processor']} ({text}), {machine['cores']} cores"


def _figure(value: float | None, digits: int = 3) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _escaped(text: str) -> str:
    return text.replace("<", "\\<").replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TABLES = {
    "parameters": _parameters,
    "launch-arguments": lambda: _launch_arguments(OWN_ARGUMENTS),
    "demo-arguments": lambda: _launch_arguments(DEMO_ARGUMENTS),
    "commands": _commands,
    "speed": _speed,
    "accuracy": _accuracy,
    "held-out": _held_out,
    "evaluated": _evaluated,
    "iou": _iou,
    "calibration": _calibration,
    "engines": _engines,
}
