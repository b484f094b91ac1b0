# SPDX-License-Identifier: Apache-2.0
"""What several tests share: a small model with random weights, what it should answer, and a place in a ROS graph."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import ModelSpec, load_network, save_model
from canet_ros.model.network_export import write_network
from canet_ros.pipeline.segmenter import Segmenter

if TYPE_CHECKING:
    from drives import Recorded, Segment
    from ros_graph import Graph

# A script's background job ignores Ctrl-C, one under nohup a terminal that closes, and so would every process that a
# test starts and ends in this way.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CANet-Lite with 11 classes at 160x120, random weights of a fixed seed, whose masks are not flat."""
    torch.manual_seed(4)
    spec = ModelSpec("random", load_class_table("camvid"), architecture="canet_lite", resolution=(160, 120))
    network = spec.build_network()
    with torch.no_grad():
        network.train()
        for _ in range(3):
            network(torch.randn(4, 3, 120, 160))
    folder = tmp_path_factory.mktemp("models") / "random"
    save_model(folder, spec, network.eval())
    write_network(folder)  # so that processes need no PyTorch, which takes longer to import than all else
    return folder


@pytest.fixture(scope="session")
def sharp_model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with logits further apart: as its masks, but of every confidence."""
    spec, network = load_network(random_model)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(200)
    folder = tmp_path_factory.mktemp("models") / "sharp"
    save_model(folder, spec, network)
    write_network(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(random_model: Path) -> Segmenter:
    return Segmenter.load(random_model, device="cpu", engine="onnxruntime", precision="fp32")


@pytest.fixture(scope="module")
def sharp_segmenter(sharp_model: Path) -> Segmenter:
    return Segmenter.load(sharp_model, device="cpu", engine="onnxruntime", precision="fp32")


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    from ros_graph import Graph  # here, because it takes rclpy

    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture(scope="session")
def messages() -> Sequence[Recorded]:
    """A drive of two cameras."""
    from drives import drive_messages, images  # here, because it takes rosbags

    return drive_messages(images(5))


@pytest.fixture(scope="session")
def segment(random_model: Path) -> Segment:
    """``canet segment-bag`` with a model of random weights; the exit status."""
    from drives import EXACT

    def run(*arguments: object) -> int:
        return main(["segment-bag", *map(str, arguments), "--model", str(random_model), *EXACT])

    return run


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Derived files of this test alone."""
    monkeypatch.setenv("CANET_ROS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Derived files of this module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANET_ROS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def report(tmp_path: Path) -> Callable[[], list[dict]]:
    """What --json wrote to report.json."""
    return lambda: json.loads((tmp_path / "report.json").read_text())
