# SPDX-License-Identifier: Apache-2.0
"""``canet segment-bag``: what goes in comes out, with the results beside it, and never half of it.

Bags are written and read back by rosbags; that rosbag2 and Foxglove open them is not asserted: they are not to be had
without a ROS installation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
from drives import (
    EXACT,
    PERIOD_NS,
    START_NS,
    TOPICS,
    Recorded,
    Segment,
    bag_of,
    carried,
    read_bag,
    results_of,
    write_bag,
)
from rosbags.rosbag2 import Reader

from canet_ros.bags.output import Output
from canet_ros.model.class_table import load_class_table
from canet_ros.pipeline.segmenter import Segmenter

STRING = "std_msgs/msg/String"
SPLIT = ("--split-duration", "0.2")
FRONT, REAR = "/front/segmentation", "/rear/segmentation"


def front_images(times: Sequence[int], width: int = 160, height: int = 120) -> list[Recorded]:
    frames = drives.images(3, width, height)
    return [
        Recorded("/front/image_raw", drives.IMAGE, time, drives.image(frames[index % 3], time))
        for index, time in enumerate(times)
    ]


def mask_of(message: object) -> np.ndarray:
    return cv2.imdecode(np.asarray(message.data), cv2.IMREAD_UNCHANGED)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [("mcap", "none"), ("mcap", "storage"), ("mcap", "message"), ("sqlite3", "none"), ("sqlite3", "file")],
)
def test_everything_is_copied_and_the_results_are_added(
    storage: str, compression: str, messages: Sequence[Recorded], segment: Segment, tmp_path: Path
) -> None:
    source = write_bag(tmp_path / "drive ünï", messages, storage, compression)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert segment(source, tmp_path / "out") == 0
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    written = read_bag(tmp_path / "out")
    assert carried(written) == list(messages)
    names = {message.topic for message in written} - set(TOPICS)
    kinds = ("mask/compressed", "overlay/compressed", "label_info")
    assert names == {f"{prefix}/{kind}" for prefix in (FRONT, REAR) for kind in kinds} | {
        f"{FRONT}/camera_info"
    }
    with Reader(source) as old, Reader(tmp_path / "out") as new:
        by_topic = {connection.topic: connection for connection in new.connections}
        for connection in old.connections:
            twin = by_topic[connection.topic]
            assert (twin.msgtype, twin.ext) == (connection.msgtype, connection.ext)
            assert (twin.msgdef, twin.digest) == (connection.msgdef, connection.digest)
        (label_qos,) = by_topic[f"{FRONT}/label_info"].ext.offered_qos_profiles
        assert label_qos.durability.name == "TRANSIENT_LOCAL"
    assert not list(tmp_path.glob("*.partial"))


def test_masks_equal_those_of_the_segmenter_and_have_the_cameras_header(
    messages: Sequence[Recorded], segment: Segment, random_model: Path, tmp_path: Path
) -> None:
    source = write_bag(tmp_path / "in", messages)
    outputs = "mask,mask/compressed,color_mask,overlay,confidence,camera_info,label_info"
    groups = ("--groups", "{drivable: [road, pavement]}")
    assert segment(source, tmp_path / "out", "--outputs", outputs, *groups) == 0
    written = read_bag(tmp_path / "out")
    assert f"{FRONT}/groups/drivable/compressed" in {message.topic for message in written}
    segmenter = Segmenter.load(random_model, "cpu", "onnxruntime", "fp32")
    expected = [segmenter(frame) for frame in drives.images(5)]
    masks = list(results_of(written, f"{FRONT}/mask"))
    packed = list(results_of(written, f"{FRONT}/mask/compressed"))
    confidences = list(results_of(written, f"{FRONT}/confidence"))
    assert len(masks) == len(packed) == len(confidences) == 5
    for index, result in enumerate(expected):
        assert np.array_equal(masks[index].data.reshape(120, 160), result.mask)
        assert np.array_equal(mask_of(packed[index]), result.mask)
        assert np.array_equal(confidences[index].data.reshape(120, 160), result.confidence)
        stamp = START_NS + index * PERIOD_NS
        for message in (masks[index], packed[index]):
            assert (message.header.stamp.sec, message.header.stamp.nanosec) == divmod(stamp, 10**9)
            assert message.header.frame_id == "camera"
    infos = list(results_of(written, f"{FRONT}/camera_info"))
    assert [info.width for info in infos] == [160] * 5
    assert [info.header.stamp for info in infos] == [mask.header.stamp for mask in masks]
    labels = next(results_of(written, f"{FRONT}/label_info"))
    assert tuple(entry.class_name for entry in labels.class_map) == load_class_table("camvid").names


def test_label_info_is_repeated_every_ten_seconds_of_the_bag(segment: Segment, tmp_path: Path) -> None:
    times = [START_NS + second * 10**9 for second in (0, 5, 10, 12, 25)]
    source = bag_of(tmp_path / "in", front_images(times))
    assert segment(source, tmp_path / "out", "--mask-size", "network") == 0
    labels = [message for message in read_bag(tmp_path / "out") if message.topic.endswith("label_info")]
    assert [message.log_ns for message in labels] == [times[0], times[2], times[4]]


def test_times_topics_and_every_nth(messages: Sequence[Recorded], segment: Segment, tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", messages, "sqlite3")
    window = ("--start", "0.1", "--duration", "0.3")
    assert segment(source, tmp_path / "a", *window, "--topics", "/front/image_raw") == 0
    start, end = START_NS + PERIOD_NS, START_NS + 4 * PERIOD_NS
    written = read_bag(tmp_path / "a")
    latched = replace(messages[0], log_ns=start)
    assert carried(written) == [latched, *(m for m in messages if start <= m.log_ns < end)]
    assert len(list(results_of(written, f"{FRONT}/mask/compressed"))) == 3
    assert not list(results_of(written, f"{REAR}/mask/compressed"))
    assert segment(source, tmp_path / "b", "--every", "2", "--only-results") == 0
    written = read_bag(tmp_path / "b")
    assert carried(written) == []
    assert len(list(results_of(written, f"{FRONT}/mask/compressed"))) == 3
    assert segment(source, tmp_path / "c", "--camera-rate", "5") == 0
    assert len(list(results_of(read_bag(tmp_path / "c"), f"{FRONT}/mask/compressed"))) == 3


def test_one_file_in_one_file_out_and_again(
    messages: Sequence[Recorded], segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_bag(tmp_path / "in", messages)
    link = tmp_path / "link.mcap"
    link.symlink_to(drives.storage_file(source))
    assert segment(link, tmp_path / "once.mcap") == 0
    once = read_bag(tmp_path / "once.mcap")
    assert carried(once) == list(messages)
    assert segment(tmp_path / "once.mcap", tmp_path / "twice.mcap") == 0
    assert "exists in the input" in capsys.readouterr().err
    assert sorted(map(repr, read_bag(tmp_path / "twice.mcap"))) == sorted(map(repr, once))


def test_several_bags_become_a_folder_of_bags(
    messages: Sequence[Recorded], segment: Segment, tmp_path: Path
) -> None:
    for name in ("a/drive", "b/drive", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_bag(tmp_path / name, messages[:5])
    assert segment(tmp_path / "a/drive", tmp_path / "b/drive", tmp_path / "c", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_drive", "b_drive", "c"]
    assert segment(tmp_path / "c", tmp_path / "c", tmp_path / "out2") == 1


def test_existing_and_nested_outputs_are_refused(
    messages: Sequence[Recorded], segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_bag(tmp_path / "in", messages[:5])
    around = "is, contains or lies in the input"
    for out, printed in (
        (source, around),
        (source / "out", around),
        (tmp_path, around),
        (tmp_path / "x.db3", "mcap"),
    ):
        assert segment(source, out, "--force") == 1
        assert printed in capsys.readouterr().err
    assert len(list(source.iterdir())) == 2
    assert segment(source, tmp_path / "out") == 0
    assert segment(source, tmp_path / "out") == 1
    assert "exists" in capsys.readouterr().err
    assert segment(source, tmp_path / "out", "--only-results", "--force") == 0
    assert carried(read_bag(tmp_path / "out")) == []
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "thesis.tex").write_text("")
    assert segment(source, tmp_path / "mine", "--force") == 1
    assert "contains other files" in capsys.readouterr().err
    assert (tmp_path / "mine.partial" / "thesis.tex").exists()


def test_images_that_cannot_be_decoded_are_named_and_skipped(
    messages: Sequence[Recorded], segment: Segment, tmp_path: Path, report: Callable[[], list[dict]]
) -> None:
    broken = list(messages)
    frame = drives.images(1)[0]
    at = [index for index, message in enumerate(broken) if message.topic == "/front/image_raw"]
    times = [broken[index].log_ns for index in at]
    replacements = (
        drives.image(frame, times[0], "no_such_encoding"),
        b"",
        messages[at[2]].data[:-100],
        drives.image(np.zeros((2, 2), np.float32), times[3], "32FC1"),
    )
    for index, data in zip(at, replacements):
        broken[index] = Recorded("/front/image_raw", drives.IMAGE, broken[index].log_ns, data)
    source = write_bag(tmp_path / "in", broken)
    assert segment(source, tmp_path / "out", "--json", tmp_path / "report.json") == 0
    assert carried(read_bag(tmp_path / "out")) == broken
    found = report()[0]
    assert (found["images"], found["undecodable"]) == (6, 4)
    assert {entry["topic"] for entry in found["undecodable_images"]} == {"/front/image_raw"}
    assert [entry["stamp_ns"] for entry in found["undecodable_images"]] == times[:4]


@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (lambda path: write_bag(path, []), "no messages"),
        (lambda path: bag_of(path, [Recorded("/chatter", STRING, 0, drives.text("a"))]), "no image topic"),
        (lambda path: path.mkdir(), "not a rosbag2"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"#ROSBAG V2.0\n"), "ROS 1"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_cannot_be_segmented_is_one_line(
    make: Callable[[Path], object],
    printed: str,
    segment: Segment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "in")
    assert segment(tmp_path / "in", tmp_path / "out") == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert printed in error[-1]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_two_types_under_one_topic_and_times_that_jump_back(
    segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = drives.images(1)[0]
    topics = [
        drives.Topic("/a/image_raw", drives.IMAGE, drives.qos()),
        drives.Topic("/a/image_raw", "std_msgs/msg/String", drives.qos()),
    ]
    recorded = [Recorded("/a/image_raw", "std_msgs/msg/String", START_NS, drives.text("x"))]
    times = [START_NS + index * PERIOD_NS for index in range(4)]
    recorded += [Recorded("/a/image_raw", drives.IMAGE, t, drives.image(frame, t)) for t in times]
    source = write_bag(tmp_path / "in", recorded[::-1], topics=topics)
    assert segment(source, tmp_path / "out") == 0
    assert "recorded times jump back" in capsys.readouterr().err
    assert sorted(map(repr, carried(read_bag(tmp_path / "out")))) == sorted(map(repr, recorded))


def test_a_full_disk_leaves_the_input_and_no_bag(
    messages: Sequence[Recorded], random_model: Path, tmp_path: Path
) -> None:
    source = write_bag(tmp_path / "in", messages)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from canet_ros.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = ["segment-bag", source, tmp_path / "out", "--model", random_model, *EXACT]
    # Its own record would not fit either.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "no space left" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
    assert read_bag(source) == list(messages)


@pytest.mark.slow  # ten processes, each killed and started again
def test_kill_and_resume_at_random_moments_gives_the_same_bytes(random_model: Path, tmp_path: Path) -> None:
    """One run that is killed again and again until it ends, against one that was left alone; six files.

    4 kills; CANET_TEST_KILLS=10 does more.
    """
    recorded = front_images([START_NS + i * PERIOD_NS for i in range(60)], 320, 240)
    source = bag_of(tmp_path / "in", recorded)

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "canet_ros.cli", "segment-bag", source, out, "--resume"]
        command += ["--steady", "--split-duration", "1", "--model", random_model, *EXACT]
        return subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole" / "out").wait() == 0
    moments = random.Random(7)
    kills, most = 0, int(os.environ.get("CANET_TEST_KILLS", "4"))
    out, progress = tmp_path / "out", tmp_path / "out.partial" / "progress.json"

    def written() -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return progress.read_bytes()
        return b""

    while not out.exists():
        process = start(out)
        if kills == most:
            assert process.wait() == 0
            continue
        before = written()
        # Only a run that has done something is worth killing.
        while process.poll() is None and written() == before:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.05)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2, "a busy machine may be late to kill a run"
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "out").iterdir()}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
    assert len(expected) == 7
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("option", ["--split-size=0.5", "--split-duration=0.2", "as IN"])
def test_out_is_split_as_in_is_or_as_is_asked_for(option: str, segment: Segment, tmp_path: Path) -> None:
    """Nothing is lost where the files meet, and each begins with what the class ids mean."""
    recorded = drives.drive_messages(drives.images(6, 320, 240))
    if option == "as IN":
        parts = (write_bag(tmp_path / "a", recorded[:13]), write_bag(tmp_path / "b", recorded[13:]))
        source = drives.joined(tmp_path / "in", *parts)
    else:
        source = write_bag(tmp_path / "in", recorded)
    assert segment(source, tmp_path / "out", *([] if option == "as IN" else [option])) == 0
    files = sorted((tmp_path / "out").glob("*.mcap"))
    assert len(files) == (3 if "duration" in option else 2)
    assert carried(read_bag(tmp_path / "out")) == recorded
    assert [message for file in files for message in carried(read_bag(file))] == recorded
    assert all(read_bag(file)[0].topic.endswith("label_info") for file in files)
    assert segment(tmp_path / "in", tmp_path / "one.mcap") == 0
    results = [m for m in read_bag(tmp_path / "one.mcap") if not m.topic.endswith("label_info")]
    assert [m for m in read_bag(tmp_path / "out") if not m.topic.endswith("label_info")] == results


@pytest.fixture
def begun(segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bag of which OUT.partial holds two files, as a killed run leaves it."""
    recorded = front_images([START_NS + i * PERIOD_NS for i in range(6)], 640, 480)
    source = bag_of(tmp_path / "in", recorded)
    with monkeypatch.context() as patch:
        patch.setattr(Output, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert segment(source, tmp_path / "out", *SPLIT) == 130
    assert (tmp_path / "out.partial" / "progress.json").exists()
    return source


def test_only_the_same_run_is_resumed_and_only_once(
    begun: Path, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*options: str) -> str:
        assert segment(begun, tmp_path / "out", *options, *SPLIT) == 1
        return capsys.readouterr().err

    assert "out.partial is unfinished: --resume continues it" in printed()
    assert "was started with another options" in printed("--resume", "--every=2")
    with (tmp_path / "out.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for option in ("--resume", "--force"):
            assert "another run is writing" in printed(option)
    assert segment(begun, tmp_path / "out", "--resume", *SPLIT) == 0
    assert len(carried(read_bag(tmp_path / "out"))) == 6
    assert segment(begun, tmp_path / "out", "--resume", *SPLIT) == 0
    assert "is already complete" in capsys.readouterr().out


def test_resume_refuses_a_file_that_a_power_cut_has_shortened(
    begun: Path, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "out.partial" / "bag" / "out_0.mcap"
    os.truncate(written, written.stat().st_size // 3)
    assert segment(begun, tmp_path / "out", "--resume", *SPLIT) == 1
    assert "out_0.mcap is damaged: --force starts over" in capsys.readouterr().err
    assert segment(begun, tmp_path / "out", "--force", *SPLIT) == 0
