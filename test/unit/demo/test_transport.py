# SPDX-License-Identifier: Apache-2.0
"""Settings of the middleware, and choice of a domain."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from canet_ros.launching.network import environment_problems
from canet_ros.launching.transport import (
    FASTDDS_VARIABLES,
    PROFILE_VARIABLES,
    fastdds_profile,
    transport_environment,
    unused_domain_id,
)

CONFIG = Path(__file__).resolve().parents[3] / "config"
LARGE, SMALL = CONFIG / "fastdds.xml", CONFIG / "fastdds_small.xml"


def test_an_environment_without_a_profile_gets_ours():
    bare = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    environment = transport_environment(bare)
    added = {name: value for name, value in environment.items() if name not in bare}
    assert len(added) == 1, "Fast DDS warns if both variables are set"
    (variable, path), *_ = added.items()
    assert variable in PROFILE_VARIABLES
    assert path == str(fastdds_profile())
    assert Path(path) in (LARGE, SMALL)


@pytest.mark.parametrize("variable", FASTDDS_VARIABLES)
def test_the_users_profile_is_kept(variable):
    given = {variable: "/home/user/fastdds.xml", "HOME": "/home/user"}
    assert transport_environment(given) == given


def test_settings_are_those_of_the_middleware_in_use():
    cyclone = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    added = set(transport_environment(cyclone).items()) - set(cyclone.items())
    ((variable, settings),) = added
    assert variable == "CYCLONEDDS_URI"
    assert environment_problems({**cyclone, variable: settings}) == []
    assert transport_environment({**cyclone, variable: "mine"}) == {**cyclone, variable: "mine"}
    zenoh = {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}
    assert transport_environment(zenoh) == zenoh


@pytest.mark.parametrize(("free_mb", "profile"), [(64, SMALL), (512, LARGE)])  # 64 MB is Docker's default
def test_shared_memory_selects_the_profile(free_mb, profile, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free_mb * 2**10, f_frsize=2**10))
    assert fastdds_profile() == profile


def test_an_unused_domain_id_has_no_listener():
    first = unused_domain_id()
    assert 1 <= first <= 101
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("", 7400 + 250 * first))
        assert unused_domain_id() != first
