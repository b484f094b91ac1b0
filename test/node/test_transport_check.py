# SPDX-License-Identifier: Apache-2.0
"""Camera-sized images cross between processes with our Fast DDS profile.

Not tested: the default profile, whose losses differ between machines (see docs/transport.md), networks between
machines, Cyclone DDS and Zenoh.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("rclpy")

from canet_ros.demo.transport_check import ImageStream, TransportError, check_transport
from canet_ros.launching.transport import transport_environment

pytestmark = pytest.mark.ros


def test_images_of_1280x720_at_30_hz_arrive():
    """Best effort; with Fast DDS's defaults 1 % arrive. Fewer than all, because a loaded machine loses some."""
    result = check_transport(
        ImageStream(width=1280, height=720, rate_hz=30, count=150), transport_environment()
    )
    assert result.sent == 150
    assert 0.8 <= result.received_fraction <= 1
    assert 0 < result.latency_p50_ms <= result.latency_p95_ms


def test_a_failed_process_is_named():
    with pytest.raises(TransportError, match="no_such_rmw"):
        check_transport(ImageStream(count=1), {**os.environ, "RMW_IMPLEMENTATION": "no_such_rmw"})
