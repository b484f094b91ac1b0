# SPDX-License-Identifier: Apache-2.0
"""Model folders that somebody else made: each fault is a ModelError of one line, in bounded memory and time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from canet_ros.model.model_folder import ModelError, graph_hash, load_network, load_spec, save_model

SPEC, WEIGHTS = "model.yaml", "weights.safetensors"
MUTATIONS = int(os.environ.get("CANET_TEST_MUTATIONS", 150))


@pytest.fixture
def copied(random_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model, tmp_path / "copy"))


def refused(call: Callable[[Path], object], folder: Path) -> str:
    start_s = time.process_time()
    with pytest.raises(ModelError) as raised:
        call(folder)
    assert time.process_time() - start_s < 20
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    return str(raised.value)


BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
YAML_FAULTS = {
    "aliases": f"a0: &a0 [x]\n{BOMB}",
    "an alias in itself": "training: &a [*a]\n",
    "nested": "training: " + "[" * 20000,
    "large": "# " + "x" * 200_000,
    "no text": "\x00\x01",
    "a type": "!!python/object/apply:os.system ['touch /tmp/canet_ros_was_here']",
    "a list": "[1, 2]",
    "nothing": "",
    "no timestamp": "training: !!timestamp x",
    "no number": "training: !!int ''",
}


@pytest.mark.parametrize("fault", YAML_FAULTS)
def test_yaml_that_is_none_or_a_bomb(copied: Path, fault: str) -> None:
    (copied / SPEC).write_text(YAML_FAULTS[fault])
    refused(load_spec, copied)
    assert not Path("/tmp/canet_ros_was_here").exists()


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *((entry, value) for entry in ("resolution", "mean", "std", "classes") for value in ("[[1]]", "true", ".nan")),
        ("training", "[[1]]"),
        ("metrics", "true"),
        ("name", "[[1]]"),
        ("name", "../../etc"),
        ("name", "a\\nb"),
        ("std", "[0, 1, 1]"),
        ("std", "[.inf, 1, 1]"),
        ("temperature", "hot"),
        ("hidden_channels", "[[1]]"),
        ("hidden_channels", "{a: {b: 1}}"),
        ("hidden_channels", "{2: true}"),
        ("architecture", "[canet]"),
    ],
)  # fmt: skip
def test_entries_of_a_wrong_type(copied: Path, entry: str, value: str) -> None:
    import yaml

    raw = yaml.safe_load((copied / SPEC).read_text())
    raw[entry] = (
        yaml.safe_load(f'"{value}"') if value[0] in ".a" and value != ".nan" else yaml.safe_load(value)
    )
    (copied / SPEC).write_text(yaml.safe_dump(raw))
    refused(load_network, copied)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("temprature: 2", r"unknown entry 'temprature': did you mean 'temperature'\?"),
        ("temperature: hot", "temperature: expected a number, got 'hot'"),
        ("familiar: {edges: 3}", r"familiar: edges: expected \[lowest, highest\], got 3"),
    ],
)
def test_an_entry_is_named_that_is_misspelt_or_no_number(copied: Path, line: str, words: str) -> None:
    spec = copied / "model.yaml"
    kept = [one for one in spec.read_text().splitlines() if one.partition(":")[0] != line.partition(":")[0]]
    spec.write_text("\n".join([*kept, "note: my own entries are allowed", line]))
    with pytest.raises(ModelError, match=words):
        load_spec(copied)


def without_checksum(folder: Path) -> None:
    lines = (folder / SPEC).read_text().splitlines()
    (folder / SPEC).write_text("\n".join(line for line in lines if "weights_sha256" not in line) + "\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w["head.bias"].fill_(float("nan")), "head.bias contains NaN or infinite values"),
        (lambda w: w["head.weight"].view(-1)[3:4].fill_(float("inf")), "head.weight contains"),
        (lambda w: w.update({"head.bias": w["head.bias"].to(torch.int64)}), "head.bias is of int64"),
        (lambda w: w.update({"head.bias": w["head.bias"] > 0}), "head.bias is of bool"),
        (lambda w: next(t for n, t in w.items() if n.endswith("running_var")).fill_(-1), "negative variance"),
    ],
)
def test_numbers_that_are_none(
    copied: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    weights = load_file(copied / WEIGHTS)
    change(weights)
    save_file(weights, copied / WEIGHTS)
    assert words in refused(load_network, copied)


def test_weights_of_another_model_are_told_by_their_checksum(
    random_model: Path, copied: Path, tmp_path: Path
) -> None:
    spec, network = load_network(random_model)
    network.head.bias.data += 1
    save_model(tmp_path / "other", spec, network)
    shutil.copy(tmp_path / "other" / WEIGHTS, copied / WEIGHTS)
    assert "copy the whole model folder again" in refused(load_network, copied)


@pytest.mark.parametrize("file", [SPEC, WEIGHTS])
@pytest.mark.parametrize("fault", ["missing", "empty", "folder", "pipe", "endless", "circle", "huge"])
def test_files_that_are_none(copied: Path, file: str, fault: str) -> None:
    path = copied / file
    path.unlink()
    if fault == "empty":
        path.touch()
    elif fault == "folder":
        path.mkdir()
    elif fault == "pipe":
        os.mkfifo(path)
    elif fault == "endless":
        path.symlink_to("/dev/zero")
    elif fault == "circle":
        path.symlink_to(path)
    elif fault == "huge":
        with path.open("wb") as sparse:
            sparse.truncate(2**40)
    refused(load_network, copied)
    refused(graph_hash, copied) if fault != "empty" or file == SPEC else None


@pytest.mark.parametrize("file", [SPEC, WEIGHTS])
def test_mutated_files(copied: Path, file: str) -> None:
    """Bytes changed, cut out and doubled at random places: it loads, or it is a ModelError of one line."""
    without_checksum(copied)
    rng = np.random.default_rng(7)
    refusals = []
    whole = (copied / file).read_bytes()
    reach = len(whole) if file == SPEC else 8 + int.from_bytes(whole[:8], "little")
    for _ in range(MUTATIONS):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            at, count = int(rng.integers(reach)), int(rng.integers(1, 20))
            kind = rng.integers(3)
            if kind == 0:
                data[at % len(data)] = int(rng.integers(256))
            elif kind == 1:
                del data[at : at + count]
            else:
                data[at:at] = data[at : at + count]
        (copied / file).write_bytes(data)
        try:
            load_spec(copied) if file == SPEC else load_network(copied)
        except ModelError as error:
            refusals.append(str(error))
    assert refusals
    assert not [text for text in refusals if "\n" in text]
