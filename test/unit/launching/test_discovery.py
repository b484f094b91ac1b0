# SPDX-License-Identifier: Apache-2.0
"""Settings of the middleware, network interfaces that prevent discovery, and choice of a domain."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from canet_ros.launching.network import environment_problems, interface_addresses, late_interfaces
from canet_ros.launching.transport import (
    FASTDDS_VARIABLES,
    PROFILE_VARIABLES,
    fastdds_profile,
    profile_variable,
    transport_environment,
    unused_domain_id,
)


def test_our_transport_environment_has_no_problems() -> None:
    assert environment_problems(transport_environment({"ROS_DOMAIN_ID": "7"})) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ROS_DOMAIN_ID": "233"}, "expected 0 to 232"),
        ({"ROS_DOMAIN_ID": "one"}, "expected 0 to 232"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "cannot discover each other"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhost"}, "expected one of SUBNET"),
        ({profile_variable(): "missing.xml"}, "missing.xml cannot be read (No such file or directory)"),
        ({profile_variable(): __file__}, "is not valid XML"),
        (
            {next(name for name in PROFILE_VARIABLES if name != profile_variable()): "mine.xml"},
            f"reads only {profile_variable()}: export {profile_variable()}=mine.xml",
        ),
    ],
)
def test_problems_of_an_environment(variables: dict[str, str], words: str) -> None:
    (problem,) = environment_problems(variables)
    assert problem.startswith(next(iter(variables)))
    assert words in problem


def test_new_interfaces_and_addresses_are_late() -> None:
    now = interface_addresses()
    if not now:
        pytest.skip("no network interface runs here")
    name, address = next(iter(now.items()))
    assert late_interfaces(now) == ""
    for before in ({**now, name: "192.0.2.77"}, {n: a for n, a in now.items() if n != name}):
        assert f"network interface {name} ({address}) came up after this node started" in late_interfaces(
            before
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


def test_settings_are_those_of_the_middleware_in_use():
    cyclone = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    added = set(transport_environment(cyclone).items()) - set(cyclone.items())
    ((variable, settings),) = added
    assert variable == "CYCLONEDDS_URI"
    assert environment_problems({**cyclone, variable: settings}) == []
    assert transport_environment({**cyclone, variable: "mine"}) == {**cyclone, variable: "mine"}
    for given in ({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, *({name: "mine"} for name in FASTDDS_VARIABLES)):
        assert transport_environment(given) == given


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
