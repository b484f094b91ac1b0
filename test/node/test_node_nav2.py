# SPDX-License-Identifier: Apache-2.0
"""What Nav2 and the tools around it expect of a node: a bond with its manager, names and keys in diagnostics.

A stand-in takes bondpy's place where that is not installed; it shows when a bond begins and ends, not its protocol.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, Process, health, segmentation_node, wait_until

STAND_IN = """
from std_msgs.msg import String
class Bond:
    def __init__(self, node, topic, bond_id, on_broken, on_formed):
        self.pub = node.create_publisher(String, topic, 1)
        self.node, self.topic, self.id, self.on_formed = node, topic, bond_id, on_formed
    def start(self):
        self.sub = self.node.create_subscription(String, self.topic, lambda message: None, 1)
        assert (self.id, self.heartbeat_timeout, self.heartbeat_period) == ("canet", 4.0, 0.1)
        self.on_formed()
    def set_broken_callback(self, callback): pass
    def break_bond(self): pass
    def wait_until_broken(self, timeout): pass
    def shutdown(self): pass
"""


@pytest.fixture(scope="module")
def node(random_model: Path, graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("bondpy") is None:
            folder = tmp_path_factory.mktemp("bondpy")
            for package, file, text in (
                ("bond", "msg.py", "class Constants:\n    DISABLE_HEARTBEAT_TIMEOUT_PARAM = '/off'\n"),
                ("bondpy", "bondpy.py", STAND_IN),
            ):
                (folder / package).mkdir()
                (folder / package / "__init__.py").touch()
                (folder / package / file).write_text(text)
            path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
            patch.setenv("PYTHONPATH", os.pathsep.join(path))
        with segmentation_node(random_model) as process:
            graph.wait_for_state("active")
            yield process


def ends(graph: Graph) -> tuple[int, int]:
    """Publishers and subscribers of the bond's topic."""
    return graph.node.count_publishers("/bond"), graph.node.count_subscribers("/bond")


def test_an_active_node_has_one_bond_and_any_other_has_none(graph: Graph, node: Process) -> None:
    for _ in range(10):
        assert graph.change_state("deactivate")
        assert graph.change_state("activate")
    wait_until(lambda: ends(graph) == (1, 1), "one bond after 10 reactivations")
    assert graph.change_state("deactivate")
    wait_until(lambda: ends(graph) == (0, 0), "the end of the bond")
    assert graph.set_parameter("bond_timeout", 0.0).successful
    assert graph.change_state("activate")
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    wait_until(lambda: health(diagnostics, "engine").get("bond") == "none", "diagnostics without a bond")
    assert ends(graph) == (0, 0)
    assert not graph.set_parameter("bond_timeout", 4.0).successful
    graph.clear()
