# SPDX-License-Identifier: Apache-2.0
"""Settings and network interfaces that prevent discovery are reported; interfaces are tested in a network namespace."""

from __future__ import annotations

import pytest

from canet_ros.launching.network import environment_problems, interface_addresses, late_interfaces
from canet_ros.launching.transport import PROFILE_VARIABLES, profile_variable, transport_environment


def test_our_transport_environment_has_no_problems() -> None:
    assert environment_problems(transport_environment({"ROS_DOMAIN_ID": "7"})) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ROS_DOMAIN_ID": "233"}, "expected 0 to 232"),
        ({"ROS_DOMAIN_ID": "-1"}, "expected 0 to 232"),
        ({"ROS_DOMAIN_ID": "one"}, "expected 0 to 232"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "cannot discover each other"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhost"}, "expected one of SUBNET"),
        ({profile_variable(): "missing.xml"}, "missing.xml cannot be read (No such file or directory)"),
        ({profile_variable(): "."}, "cannot be read (Is a directory)"),
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
