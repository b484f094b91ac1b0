# SPDX-License-Identifier: Apache-2.0
"""Another model on an active node: it is loaded and tested beside the one in use, which stays if the new one fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, Process, health, picture, pixels_of, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import ModelSpec, save_model
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import IMAGE_FILE, MASK_FILE
from canet_ros.pipeline.visualization import color_lookup_table, colorize
from canet_ros.ros.fault_log import Fault

CAMERA, RESULTS = "/camera/image_raw", "/camera/segmentation"
EXACT = ("cpu", "onnxruntime", "fp32")
IMAGE = picture(320, 240)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with three other classes, and another resolution than ``random_model``."""
    torch.manual_seed(5)
    classes = ClassTable(("floor", "shelf", "pallet"), ((10, 20, 30), (200, 0, 0), (0, 200, 0)))
    spec = ModelSpec("other", classes, architecture="canet_lite", resolution=(128, 96))
    network = spec.build_network()
    with torch.no_grad():
        network.train()
        network(torch.randn(4, 3, 96, 128))
    folder = tmp_path_factory.mktemp("models") / "other"
    save_model(folder, spec, network.eval())
    return folder


@pytest.fixture(scope="module")
def wrong_model(other_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``other_model`` with a self-test that no engine passes."""
    folder = Path(shutil.copytree(other_model, tmp_path_factory.mktemp("models") / "wrong"))
    image = picture(128, 96)
    mask = (Segmenter.load(other_model, *EXACT)(image).mask + 1) % 3
    cv2.imwrite(str(folder / IMAGE_FILE), image)
    cv2.imwrite(str(folder / MASK_FILE), mask)
    return folder


@pytest.fixture(scope="module")
def process(random_model: Path, graph: Graph, fault_file: Path) -> Iterator[Process]:
    with segmentation_node(random_model, (str(Path(__file__).parent / "faulty_node.py"),)) as process:
        graph.wait_for_state("active")
        yield process


class Node:
    def __init__(self, graph: Graph, process: Process) -> None:
        self.graph, self.process = graph, process
        self.diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        self.masks = graph.listen(Image, f"{RESULTS}/mask")
        self.colors = graph.listen(Image, f"{RESULTS}/color_mask")
        self.camera = graph.camera(CAMERA)
        graph.connect(self.camera, self.masks, self.colors)
        self.diagnostics.wait_for(1)

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Mask and coloured mask of one image."""
        stamp = self.camera.send(IMAGE)
        return pixels_of(self.masks.wait_for_stamp(stamp)), pixels_of(self.colors.wait_for_stamp(stamp))

    def engine(self) -> dict[str, str]:
        return health(self.diagnostics, "engine")


@pytest.fixture
def node(graph: Graph, process: Process, random_model: Path, fault_file: Path) -> Iterator[Node]:
    node = Node(graph, process)
    yield node
    fault_file.write_text("none")
    assert graph.set_parameter("groups", "").successful
    assert graph.set_parameter("model", str(random_model)).successful
    wait_until(lambda: node.engine()["model"] == "random" and not node.engine()["doing"], "the first model")
    graph.clear()


def test_all_results_change_with_the_same_frame(node: Node, random_model: Path, other_model: Path) -> None:
    expected = []
    for model in (random_model, other_model):
        segmenter = Segmenter.load(model, *EXACT)
        mask = segmenter(IMAGE).mask
        expected.append((mask, colorize(mask, color_lookup_table(segmenter.spec.classes, "rgb"))))
    used: list[int] = []
    names = []

    def switched() -> bool:
        mask, colors = node.results()  # of every frame: none is lost
        used.append(int((mask == expected[1][0]).all()))
        np.testing.assert_array_equal(mask, expected[used[-1]][0])
        np.testing.assert_array_equal(colors, expected[used[-1]][1])
        names.append(node.graph.get_parameter("class_names"))
        return used.count(1) == 3

    assert not switched()
    assert used == [0]
    assert node.graph.set_parameter("model", str(other_model)).successful
    wait_until(switched, "three masks of the new model")
    assert used == sorted(used), "it switches once"
    assert names[used.index(1)] == ["floor", "shelf", "pallet"]
    wait_until(lambda: node.engine()["model"] == "other", "the diagnostics")
    assert node.engine()["fault"] == ""


def test_label_info_precedes_the_first_mask_of_the_new_model(node: Node, other_model: Path) -> None:
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    from rclpy.qos import DurabilityPolicy, QoSProfile

    latched = QoSProfile(depth=9, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = node.graph.listen(vision_msgs.LabelInfo, f"{RESULTS}/label_info", latched)
    infos.wait_for(1)
    first = Segmenter.load(other_model, *EXACT)(IMAGE).mask
    assert node.graph.set_parameter("model", str(other_model)).successful
    wait_until(lambda: (node.results()[0] == first).all(), "the first mask of the new model")
    assert [c.class_name for c in infos.messages[-1].class_map] == ["floor", "shelf", "pallet"]


def test_the_model_in_use_stays_when_the_new_one_fails(
    node: Node, random_model: Path, other_model: Path, wrong_model: Path, fault_file: Path
) -> None:
    before, _ = node.results()
    for fault, model, text in (
        ("broken", other_model, "the driver is too old"),
        ("full", other_model, "two models do not fit into memory"),
        ("none", wrong_model, "self-test failed"),
    ):
        fault_file.write_text(fault)
        assert node.graph.set_parameter("model", str(model)).successful
        wait_until(lambda text=text: text in node.engine()["message"], "the reason")
        assert node.engine()["fault"] == Fault.MODEL_KEPT.value
        assert text in node.process.output()
        assert node.engine()["model"] == "random"
        assert node.graph.get_parameter("model") == str(random_model)
        np.testing.assert_array_equal(node.results()[0], before)


def test_masks_continue_while_a_model_is_loaded_and_the_last_request_counts(
    node: Node, random_model: Path, other_model: Path, fault_file: Path
) -> None:
    before, _ = node.results()
    fault_file.write_text("slow")
    assert node.graph.set_parameter("model", str(other_model)).successful
    wait_until(lambda: "loading the model" in node.engine()["doing"], "the activity")
    np.testing.assert_array_equal(node.results()[0], before)
    assert health(node.diagnostics, CAMERA)["state"] != "no_model_yet"
    assert node.graph.change_state("deactivate")
    assert node.graph.set_parameter("model", str(random_model)).successful
    assert node.graph.change_state("activate")
    fault_file.write_text("none")
    node.graph.connect(node.camera, node.masks, node.colors)
    assert node.graph.set_parameter("model", str(other_model)).successful
    assert node.graph.set_parameter("model", str(random_model)).successful
    node.diagnostics.wait_for_new(5)  # a model that is no longer requested must not be used meanwhile
    wait_until(lambda: not node.engine()["doing"], "the end of the activity")
    np.testing.assert_array_equal(node.results()[0], before)
    assert node.engine()["model"] == "random"


def test_what_can_be_checked_at_once_is_refused(node: Node, other_model: Path) -> None:
    result = node.graph.set_parameter("model", "/no/such/model")
    assert not result.successful
    assert "/no/such/model" in result.reason
    name = node.graph.get_parameter("class_names")[0]
    assert node.graph.set_parameter("groups", f"{{mine: [{name}]}}").successful
    result = node.graph.set_parameter("model", str(other_model))
    assert not result.successful
    assert f"mine names {name}, which the model does not have" in result.reason
