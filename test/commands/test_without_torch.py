# SPDX-License-Identifier: Apache-2.0
"""What a robot runs takes no PyTorch: commands and engines in processes where its import fails, with an empty cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from without_torch import BLOCKED

from canet_ros.engines import cpu_has_bf16
from canet_ros.model.model_folder import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    available_models,
    load_spec,
)
from canet_ros.model.network_export import write_network
from canet_ros.pipeline.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("own_cache")

CANET = BLOCKED + "from canet_ros.cli import main; sys.exit(main())"
MODEL = "canet_lite-mobilenet_v2-camvid"


def canet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CANET, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    shutil.copyfile(available_models()[MODEL] / "selftest.png", tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("openvino", "bf16" if cpu_has_bf16() else "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32")],
)
def test_segment(engine: str, precision: str, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    how = ("--model", MODEL, "--engine", engine, "--precision", precision, "--device", "cpu")
    ran = canet("segment", image, "--out", out, *how, "--resolution", "480x360")
    assert ran.returncode == 0, ran.stderr
    names = [path.relative_to(out) for path in out.rglob("*.png")]
    (mask_file,) = (out / name for name in names if "mask" in str(name) and "color" not in name.stem)
    mask = cv2.imread(str(mask_file), cv2.IMREAD_UNCHANGED)
    exact = Segmenter.load(MODEL, "cpu", "torch", "fp32")(cv2.imread(str(image))).mask
    assert (mask == exact).mean() > (0.9999 if precision == "fp32" else 0.98)


def test_auto_passes_torch_over_and_torch_says_what_to_install(image: Path, tmp_path: Path) -> None:
    ran = canet("segment", image, "--out", tmp_path / "out", "--model", MODEL, "--device", "cpu")
    assert ran.returncode == 0
    refused = canet("segment", image, "--out", tmp_path / "other", "--model", MODEL, "--engine", "torch")
    assert refused.returncode == 1
    assert "the package torch is missing: pip install torch" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_model_without_its_network_names_the_remedy(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(available_models()[MODEL], folder, ignore=shutil.ignore_patterns(NETWORK_FILE))
    arguments = ("segment", image, "--out", tmp_path / "out", "--model", folder, "--engine", "onnxruntime")
    refused = canet(*arguments, "--precision", "fp32")
    assert refused.returncode == 1
    assert f"canet export --model {folder} --network" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    # As the machine with PyTorch does that the message names.
    write_network(folder)
    assert canet(*arguments, "--precision", "fp32").returncode == 0


def test_weights_that_changed_are_not_run_in_the_network_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(available_models()[MODEL], folder)
    weights = load_file(folder / WEIGHTS_FILE)
    of_the_first_class = len(weights["head.bias"]) // len(load_spec(folder).classes)
    weights["head.bias"][:of_the_first_class] += 100
    save_file(weights, folder / WEIGHTS_FILE)
    text = (folder / "model.yaml").read_text(encoding="utf-8").splitlines()
    (folder / "model.yaml").write_text(
        "\n".join(x for x in text if "weights_sha256" not in x), encoding="utf-8"
    )
    mask = Segmenter.load(str(folder), "cpu", "onnxruntime", "fp32", (160, 96))(
        np.zeros((96, 160, 3), np.uint8)
    ).mask
    assert mask.max() == 0


@pytest.mark.parametrize("name", sorted(available_models()))
def test_other_tools_read_the_network_file(name: str) -> None:
    """ONNX's checker and ONNX Runtime follow its references into the weights, at a size of their choice."""
    folder = available_models()[name]
    path = folder / NETWORK_FILE
    onnx.checker.check_model(str(path), full_check=True)
    assert path.stat().st_size < 2**19
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": np.zeros((2, 3, 72, 104), np.float32)})
    assert logits.shape[:2] == (2, len(load_spec(folder).classes))


def test_modules_of_the_runtime_import_without_torch() -> None:
    code = """
import importlib, pkgutil, canet_ros
kept = {"engines.torch_engine", "model.network_export", "model.deployment_module"}
for package in ("model", "engines", "pipeline", "bags", "messages"):
    for module in pkgutil.walk_packages([f"{canet_ros.__path__[0]}/{package}"], f"canet_ros.{package}."):
        if module.name.removeprefix("canet_ros.") not in kept:
            importlib.import_module(module.name)
names = "benchmark demo doctor evaluate export import models pick report segment segment_bag"
for command in names.split():
    importlib.import_module(f"canet_ros.commands.{command}")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", BLOCKED + code], check=True)
