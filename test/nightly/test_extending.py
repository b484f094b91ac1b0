# SPDX-License-Identifier: Apache-2.0
"""docs/project/extending.md works as written: its blocks are applied to a copy of the package, and the copy is used.

Asserted: every new name is offered wherever names are offered, and works. Not asserted: that what is added is any good.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```python\n# (canet_ros/\S+?\.py)(?:, (?:in (\w+)|(at the end)))?\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the page leaves it."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "canet_ros", folder / "canet_ros", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = BLOCK.findall((ROOT / "docs" / "project" / "extending.md").read_text())
    assert len(blocks) == (ROOT / "docs" / "project" / "extending.md").read_text().count("```python")
    for name, table, at_the_end, text in blocks:
        path = folder / name
        if table:
            before, opening, after = path.read_text().partition(f"{table} = {{")
            assert opening, f"{name} has no table {table}"
            path.write_text(f"{before}{opening}\n{text}{after}")
        elif at_the_end:
            path.write_text(f"{path.read_text()}\n\n{text}")
        else:
            assert not path.exists()
            path.write_text(text)
    return folder


def run(extended: Path, code: str, *arguments: object) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=extended,
        env={**os.environ, "PYTHONPATH": str(extended), "CANET_ROS_CACHE": str(extended / "cache")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_a_new_engine_gives_the_same_masks(extended: Path, random_model: Path) -> None:
    onnx = pytest.importorskip("onnx")
    if onnx.__version__.startswith("1.15."):
        pytest.skip("this onnx's reference evaluator takes minutes for an image")
    run(
        extended,
        """
import sys
import numpy as np
from canet_ros.pipeline.segmenter import Segmenter
image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
load = lambda engine: Segmenter.load(sys.argv[1], "cpu", engine, "fp32", (96, 64))
ours, torchs = load("onnx"), load("torch")
assert (ours.engine.name, ours.engine.precision) == ("onnx", "fp32")
assert (ours(image).mask == torchs(image).mask).mean() > 0.999
""",
        random_model,
    )


TRAINED_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
from canet_ros.cli import main
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import write_scenes
folder, parts = Path(sys.argv[1]), sys.argv[2].split()
for split in ("train", "val"):
    write_scenes(folder / split, 2, 0, 96, 64)
sizes = "--crop 96x64 --resolution 96x64 --batch-size 2 --epochs 1 --workers 0".split()
where = ["--data", str(folder), "--name", "new", "--out", str(folder / "run")]
assert main(["train", *where, *parts, *sys.argv[3:], *sizes]) == 0
image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
load = lambda engine: Segmenter.load(folder / "run" / "model", "cpu", engine, "fp32")
spec = load("torch").spec
for option, value in zip(parts[::2], parts[1::2]):
    assert getattr(spec, option[2:]) == value
assert (load("torch")(image).mask == load("openvino")(image).mask).mean() > 0.999
"""


@pytest.mark.parametrize(
    ("parts", "flags"),
    [("--backbone five --fusion gated --head deeper", ()), ("--architecture coarse", ("--freeze-stem",))],
)
def test_new_parts_of_the_network_are_trained_saved_and_run(
    parts: str, flags: tuple[str, ...], extended: Path, tmp_path: Path
) -> None:
    run(extended, TRAINED_AND_RUN, tmp_path, parts, *flags)


@pytest.mark.ros
def test_a_new_output_is_a_topic(extended: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    from ros_graph import Graph, picture, segmentation_node
    from sensor_msgs.msg import CompressedImage, Image

    monkeypatch.setenv("PYTHONPATH", str(extended))
    monkeypatch.chdir(extended)
    graph = Graph()
    try:
        with segmentation_node(random_model):
            confidence = graph.listen(Image, "/camera/segmentation/confidence")
            uncertainty = graph.listen(Image, "/camera/segmentation/uncertainty")
            compressed = graph.listen(CompressedImage, "/camera/segmentation/uncertainty/compressed")
            camera = graph.camera()
            graph.connect(camera, confidence, uncertainty, compressed)
            stamp = camera.send(picture(64, 48))
            sure, unsure = (topic.wait_for_stamp(stamp).data for topic in (confidence, uncertainty))
            assert [255 - value for value in sure] == list(unsure)
    finally:
        graph.close()
