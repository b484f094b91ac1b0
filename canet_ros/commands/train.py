# SPDX-License-Identifier: Apache-2.0
"""``canet train``: train a model into a run folder, or resume the run that is there."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from canet_ros.commands import argument
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.model.model_folder import SPEC_FILE, available_models, load_spec, parse_resolution
from canet_ros.model.untrusted import read_yaml
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import parse_extra_data
from canet_ros.training.run_log import HISTORY_FILE
from canet_ros.training.train import CHECKPOINT_FILE, train

_FROM_INIT = ("architecture", "backbone", "fusion", "head")  # the defaults are those of the model of --init


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="run folder: checkpoint, history and model")


def add_training_options(parser: argparse.ArgumentParser, excluded: Collection[str] = ()) -> None:
    """Add options for the fields of ``TrainingConfig`` that are not excluded, and --classes, --device and --config.

    An option that is not given is None.
    """
    _add_file_options(parser, excluded)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file of these options (config/training/cityscapes.yaml is one); options on the command line win",
    )


def _add_file_options(parser: argparse.ArgumentParser, excluded: Collection[str]) -> None:
    annotated = get_type_hints(TrainingConfig, include_extras=True)
    for option in fields(TrainingConfig):
        if option.name in excluded:
            continue
        flag = "--" + option.name.replace("_", "-")
        (help_text,) = annotated[option.name].__metadata__
        if option.name in ("data", "name"):
            parser.add_argument(flag, required=True, help=help_text)
        elif option.name in _FROM_INIT:
            parser.add_argument(
                flag, metavar="X", help=f"{help_text} (default: that of --init's model, or {option.default})"
            )
        elif option.name in ("resolution", "crop"):
            parser.add_argument(flag, type=argument(parse_resolution), metavar="WxH", help=help_text)
        elif option.name == "extra_data":
            parser.add_argument(
                flag,
                nargs="+",
                action="extend",
                type=argument(parse_extra_data),
                metavar="FOLDER[:SHARE]",
                help=help_text,
            )
        elif isinstance(option.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
        elif isinstance(option.default, tuple):
            parser.add_argument(flag, nargs="+", metavar="X", help=help_text)
        else:
            parser.add_argument(
                flag,
                type=type(option.default),
                metavar="X",
                help=f"{help_text} (default: {'none' if option.default == '' else option.default})",
            )
    parser.add_argument(
        "--classes",
        help="class table: camvid, cityscapes, or a YAML file (default: that of --init's model, or camvid)",
    )


class _FileParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")


def _options_of_file(file: Path) -> dict[str, Any]:
    """Values of the options in a YAML file, whose keys are their names with _ for -, such as ``batch_size: 8``.

    Raises:
        ValueError: it is not a mapping, or a name or value is not that of an option.
    """
    try:
        options = read_yaml(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{file}: expected options such as batch_size: 8, one a line")
    words = []
    for name, value in options.items():
        flag = str(name).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    parser = _FileParser(prog=str(file), add_help=False, allow_abbrev=False)
    _add_file_options(parser, excluded=("data", "name"))
    return vars(parser.parse_args(words))


def training_config(arguments: argparse.Namespace, **given: str) -> tuple[TrainingConfig, ClassTable]:
    """Configuration and classes of the options, then of ``--config``; defaults are those of the model of ``--init``.

    Args:
        given: values of fields without an option.

    Raises:
        ValueError: a value is out of its range, the file is wrong, or ``--init`` is an imported ONNX network.
    """
    chosen = _options_of_file(arguments.config) if arguments.config else {}
    chosen |= {name: value for name, value in vars(arguments).items() if value is not None}
    values = {option.name: chosen.get(option.name) for option in fields(TrainingConfig)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    values |= given
    init: str = chosen.get("init") or ""
    if not Path(init).exists():
        init = str(available_models().get(init, init))
    values["init"] = init
    table: str | None = chosen.get("classes")
    classes = None if table is None else load_class_table(table)
    if init and (Path(init) / SPEC_FILE).is_file():
        model = load_spec(Path(init))
        if model.onnx is not None:
            raise ValueError(f"--init {init}: an imported ONNX network cannot be trained")
        values |= {name: getattr(model, name) for name in _FROM_INIT if values[name] is None}
        classes = classes or model.classes
    with naming_flags():
        config = TrainingConfig(**{name: value for name, value in values.items() if value is not None})
    return config, classes or load_class_table("camvid")


@contextlib.contextmanager
def naming_flags() -> Iterator[None]:
    """Replace the name of a field at the start of an error by its option."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        if name not in ("device", "minutes", "replay", *(option.name for option in fields(TrainingConfig))):
            raise
        raise ValueError(f"--{name.replace('_', '-')} {rest}") from error


def run(arguments: argparse.Namespace) -> int:
    config, classes = training_config(arguments)
    model = arguments.out / "model"
    run_files = (arguments.out / CHECKPOINT_FILE, arguments.out / HISTORY_FILE)
    if model.exists() and not any(file.exists() for file in run_files):
        raise FileExistsError(f"{model} exists, but no run that can be resumed: give another --out")
    with naming_flags():
        best = train(config, classes, arguments.out, arguments.device)
    print(f"best on val: mIoU {best.miou:.4f}{best.coverage_note}, pixel accuracy {best.pixel_accuracy:.4f}")
    print(f"model: {model}")
    return 0
