# SPDX-License-Identifier: Apache-2.0
"""``canet demo`` end to end, checked by its output files against the same frames segmented in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from waiting import wait_until

from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, overlay
from canet_ros.simulation import StreetDrive
from canet_ros.training.metrics import confusion_matrix, scores

pytestmark = pytest.mark.ros
EXACT = ("--engine", "onnxruntime", "--precision", "fp32", "--device", "cpu")
LIMIT_S = 400  # three processes that import and a model, on a machine with other work


def demo(*arguments):
    command = [sys.executable, "-m", "canet_ros.cli", "demo", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid):
    """Process ids and command lines of a process's children, by /proc."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(stat.parent.name)] = command
        except (OSError, IndexError):
            continue
    return found


def wait_until_running(process, out):
    """Wait until the node has loaded its model and the camera runs too."""
    log = out / "logs" / "segmentation_node.log"

    def is_running():
        assert process.poll() is None, process.communicate()
        return log.is_file() and "loaded in" in log.read_text() and len(children(process.pid)) == 2

    wait_until(is_running, "the demo to run", LIMIT_S)


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory, random_model):
    out = tmp_path_factory.mktemp("demo")
    (out / "overlay_099.png").write_bytes(b"of an earlier run")
    size = ("--size", "320x240", "--seed", 2, "--seconds", 2)
    process = demo("--out", out, "--force", "--model", random_model, *size, *EXACT)
    printed, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    return out, json.loads((out / "summary.json").read_text()), printed


def test_the_summary_is_consistent_and_printed(synthetic_run):
    out, summary, printed = synthetic_run
    assert summary["frames_published"] == 20
    assert 1 <= summary["frames_segmented"] <= 20
    assert summary["dropped"] == 20 - summary["frames_segmented"]
    assert summary["fps"] > 0
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"]
    expected = {"model": "random", "engine": "onnxruntime", "device": "cpu", "precision": "fp32"}
    expected |= {"resolution": "160x120", "camera_size": "320x240"}
    assert {key: summary[key] for key in expected} == expected
    for text in (
        "random",
        "onnxruntime fp32",
        "20 published",
        f"{summary['latency_ms']['p50']} ms p50",
        str(out),
    ):
        assert text in printed
    street = summary["real_street"]
    assert street["images"] == 12
    assert 0 < street["miou_against_automatic_labels"] < 1
    assert (out / street["sheet"]).is_file()
    assert "not ground truth" in printed


def test_overlays_and_accuracy_match_the_camera_and_the_model(synthetic_run, random_model):
    out, summary, _ = synthetic_run
    segmenter = Segmenter.load(random_model, device="cpu", engine="onnxruntime", precision="fp32")
    table = color_lookup_table(segmenter.spec.classes, "bgr")
    drive = StreetDrive(2, 320, 240, 10.0)
    frames = [drive.frame(index) for index in range(20)]
    masks = [segmenter(frame.image).mask for frame in frames]
    expected = [overlay(frame.image, mask, table, 0.5) for frame, mask in zip(frames, masks)]
    names = [name for name in summary["images"] if name.startswith("overlay")]
    assert sorted(path.name for path in out.glob("overlay_*")) == names
    indices = []
    for name in names:
        image = cv2.imread(str(out / name))
        indices += [i for i, candidate in enumerate(expected) if np.array_equal(image, candidate)]
    assert len(indices) == len(names), "an overlay matches no frame of the camera with the model's mask"
    assert indices == sorted(set(indices))
    assert indices, "one a second, of a drive of two seconds, or longer on a busy machine"
    if summary["dropped"] == 0:
        total = sum(confusion_matrix(frame.labels, mask, 11) for frame, mask in zip(frames, masks))
        assert summary["miou"] == pytest.approx(scores(total).miou, abs=1e-4)
        assert summary["pixel_accuracy"] == pytest.approx(scores(total).pixel_accuracy, abs=1e-4)


def test_the_users_images_have_no_ground_truth_and_are_recorded(tmp_path, random_model):
    pytest.importorskip("rosbags")
    from canet_ros.bags.reading import open_bag

    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        cv2.imwrite(str(images / f"{index}.jpg"), StreetDrive(index, 160, 120).frame(0).image)
    out = tmp_path / "out"
    (out / "drive").mkdir(parents=True)
    (out / "drive" / "drive_0.mcap").write_bytes(b"of an earlier run")
    process = demo("--out", out, "--force", "--model", random_model, "--input", images, "--bag", *EXACT)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    summary = json.loads((out / "summary.json").read_text())
    assert summary["miou"] is None
    assert summary["frames_published"] == 4
    assert summary["input"] == str(images)
    assert "real_street" not in summary
    assert cv2.imread(str(out / "contact_sheet.png")).shape[1] < 3 * 480
    with open_bag(out / "drive", tmp_path) as bag:
        topics = [message.connection.topic for message in bag.messages()]
        assert not bag.losses.problems
    assert topics.count("/street/image_raw") == topics.count("/street/camera_info") == 4
    assert topics.count("/street/segmentation/mask/compressed") >= summary["frames_segmented"] - 1


def test_a_crash_of_the_node_ends_the_demo_with_an_error(tmp_path, random_model):
    process = demo("--out", tmp_path, "--model", random_model, "--size", "160x120", *EXACT)
    wait_until_running(process, tmp_path)
    started = children(process.pid)
    (node,) = [pid for pid, command in started.items() if "canet_ros.ros.node" in command]
    subprocess.run(["kill", "-KILL", str(node)], check=True)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "segmentation node was ended by SIGKILL" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not [pid for pid in started if Path("/proc", str(pid)).exists()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_processes(number, status, tmp_path, random_model):
    process = demo("--out", tmp_path, "--model", random_model, "--size", "160x120", *EXACT)
    wait_until_running(process, tmp_path)
    started = children(process.pid)
    assert len(started) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert not [pid for pid in started if Path("/proc", str(pid)).exists()]
