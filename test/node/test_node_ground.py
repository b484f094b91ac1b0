# SPDX-License-Identifier: Apache-2.0
"""Free space on the ground through real topics: two cameras, one scan and one grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nav_msgs")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from nav_msgs.msg import OccupancyGrid
from ros_graph import Graph, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import CameraInfo, LaserScan
from std_msgs.msg import Header

from canet_ros.messages.clouds import CloudError
from canet_ros.messages.ground import GroundOptions, GroundView, merge
from canet_ros.messages.projection import camera_projection, rigid_transform
from canet_ros.pipeline.outputs import membership_table
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.image_conversion import image_message
from canet_ros.ros.transforms import Transforms

MEMBERS = ("road", "pavement", "building", "sky", "tree", "fence")
# Ahead and to the left, pitched down by 15 degrees.
POSES = {
    "front": "0.4,0.1,1.2,-0.5610,0.5610,-0.4305,0.4305",
    "left": "0.0,0.3,1.2,-0.7934,0.0,0.0,0.6088",
}


@pytest.fixture(scope="module")
def node(sharp_model: Path, graph: Graph) -> Iterator[Process]:
    parameters = {
        "image_topics": str([f"/{name}/image_raw" for name in POSES]),
        "camera_extrinsics": str(list(POSES.values())),
        "groups": f"'{{ground: [{', '.join(MEMBERS)}]}}'",
        "ground_group": "ground",
        "ground_range": 6.0,
        "ground_size": 8.0,
        "base_frame": "base_footprint",
        "ground_min_confidence": 0.3,
    }
    with segmentation_node(sharp_model, **parameters) as process:
        graph.wait_for_state("active")
        yield process
    graph.clear()


def info_of(stamp: Time, name: str) -> CameraInfo:
    matrix = [150.0, 0.0, 80.0, 0.0, 150.0, 60.0, 0.0, 0.0, 1.0]
    header = Header(stamp=stamp, frame_id=name)
    d = [-0.2, 0.05, 0.001, 0.0, 0.0]
    return CameraInfo(header=header, width=160, height=120, k=matrix, d=d, distortion_model="plumb_bob")


def test_scan_and_grid_hold_what_both_cameras_see(
    graph: Graph, node: Process, sharp_segmenter: Segmenter
) -> None:
    cameras = {name: graph.camera(f"/{name}/image_raw") for name in POSES}
    infos = {name: graph.node.create_publisher(CameraInfo, f"/{name}/camera_info", 10) for name in POSES}
    images = {name: picture(160, 120, seed) for seed, name in enumerate(POSES)}
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    diagnostics.wait_for(3)
    assert not any(camera.subscriber_count() for camera in cameras.values())  # nobody wants the ground
    scans = graph.listen(LaserScan, "/ground/scan")
    grids = graph.listen(OccupancyGrid, "/ground/grid")
    for name, camera in cameras.items():
        camera.wait_for_subscriber()
        wait_until(infos[name].get_subscription_count, "subscription")

    def send(second: int, with_info: bool = True) -> None:
        for late_ms, (name, camera) in enumerate(cameras.items()):
            stamp = Time(sec=second, nanosec=late_ms * 20_000_000)
            if with_info:
                infos[name].publish(info_of(stamp, name))
            camera.publish(image_message(images[name], "bgr8", Header(stamp=stamp, frame_id=name)))
        diagnostics.wait_for_new(1)  # so that no image is replaced by the next

    second = 100

    def without_info() -> bool:
        nonlocal second
        send(second := second + 10, with_info=False)
        expected = "no camera_info received on /front/camera_info: without it, ground cannot be published"
        return expected in health(diagnostics, "/front/image_raw").get("message", "")

    wait_until(without_info, "the reason")

    options, sights = GroundOptions(6.0, 0.1, (0.0, 0.45), 0.3), []
    for name, pose in POSES.items():
        found = sharp_segmenter(images[name])
        projection = camera_projection(info_of(Time(), name), (160, 120))
        view = GroundView(projection, rigid_transform([float(t) for t in pose.split(",")]), options)
        sights.append(view.look(membership_table(MEMBERS, found.classes) > 0, found.mask, found.confidence))
    ranges, cells = merge(sights, options)
    assert set(cells.ravel()) == {-1, 0, 100}

    def scan_of(ranges: np.ndarray) -> LaserScan | None:
        nonlocal second
        send(second := second + 10)
        equal = [s for s in list(scans.messages) if np.array_equal(s.ranges, ranges, equal_nan=True)]
        return equal[0] if equal else None

    scan = wait_until(lambda: scan_of(ranges), "a scan of both cameras")
    assert scan.header.stamp.nanosec == 20_000_000
    expected = cells[20:100, 20:100].ravel().tolist()

    def grid_of_scan() -> OccupancyGrid | None:
        # The camera whose image came first may have been published alone, with the same stamp.
        found = [grid for grid in list(grids.messages) if grid.header.stamp == scan.header.stamp]
        return next((grid for grid in found if grid.data.tolist() == expected), None)

    grid = wait_until(grid_of_scan, "the grid of the scan")
    assert scan.header.frame_id == grid.header.frame_id == "base_footprint"
    np.testing.assert_array_equal(scan.ranges, ranges)
    assert scan.angle_min + (len(ranges) - 1) * scan.angle_increment == pytest.approx(scan.angle_max)
    assert (scan.angle_min, scan.range_max) == (pytest.approx(-math.pi), 6.0)
    assert (grid.info.width, grid.info.height, grid.info.resolution) == (80, 80, pytest.approx(0.1))
    assert (grid.info.origin.position.x, grid.info.origin.position.y) == (-4.0, -4.0)
    assert graph.set_parameter("sync_slop", 0.01).successful  # the stamps are 20 ms apart
    for sight in sights:
        alone, _ = merge([sight], options)
        assert np.isfinite(alone).sum() > 10
        wait_until(lambda alone=alone: scan_of(alone), "a scan of one camera")
    for publisher in infos.values():
        graph.node.destroy_publisher(publisher)


def test_poses_of_tf2_are_those_at_the_stamp_or_else_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the interface of tf2_ros, of which there is no wheel."""
    poses = {0: "0,0,1.3,0,0,0,1", 5: "0,0,1.2,0.1,0,0,1"}  # by stamp in s; 0: the latest

    class Buffer:
        def can_transform(self, target: str, source: str, time: Any) -> bool:
            return (target, source) == ("base_link", "camera") and time.nanoseconds / 1e9 in poses

        def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
            if not self.can_transform(target, source, time):
                raise LookupError(f"{source} does not exist")
            x, y, z, *rotation = map(float, poses[time.nanoseconds // 10**9].split(","))
            transform = TransformStamped().transform
            transform.translation = Vector3(x=x, y=y, z=z)
            transform.rotation = Quaternion(**dict(zip("xyzw", rotation)))
            return TransformStamped(transform=transform)

    listener = SimpleNamespace(unregister=lambda: None)
    tf2_ros = SimpleNamespace(
        Buffer=Buffer, TransformListener=lambda *_, **__: listener, TransformException=LookupError
    )
    monkeypatch.setattr("canet_ros.ros.transforms.tf2_ros", tf2_ros)
    transforms: Any = Transforms(None, "camera_extrinsics")
    with pytest.raises(CloudError, match="yet"):
        transforms.find("base_link", "camera")
    transforms.listen()
    for stamp, second in ((Time(sec=5), 5), (Time(sec=6), 0), (None, 0)):
        expected = rigid_transform([float(t) for t in poses[second].split(",")])
        np.testing.assert_allclose(transforms.find("base_link", "camera", stamp), expected)
    with pytest.raises(
        CloudError, match="tf2 has no transform from 'lidar' to 'base_link': lidar does not exist"
    ):
        transforms.find("base_link", "lidar", Time(sec=5))
    transforms.destroy()
