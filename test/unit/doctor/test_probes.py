# SPDX-License-Identifier: Apache-2.0
"""What each probe of ``canet doctor`` finds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from canet_ros.doctor import probes


def test_without_the_default_model_another_is_looked_at(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(random_model, tmp_path / "random")
    monkeypatch.setattr("canet_ros.model.model_folder.share_folders", lambda _: [tmp_path])
    models, default, used = probes.models()
    assert (models.text, default.advice) == ("random", "set model:=random")
    assert used.text.startswith("random at 160x120 on ")


@pytest.mark.parametrize(
    ("middleware", "ours", "words"),
    [
        (
            "rmw_cyclonedds_cpp",
            60,
            (
                "60 with our settings for Cyclone DDS, latency 3 ms",
                "receives images: export CYCLONEDDS_URI='<",
            ),
        ),
        (
            "rmw_cyclonedds_cpp",
            20,
            ("20 with our settings for Cyclone DDS", "sudo sysctl -w net.core.rmem_max="),
        ),
        ("rmw_zenoh_cpp", 20, ("at 30 Hz.$", "lost-images.md")),
    ],
)
def test_lost_images_give_advice_for_the_middleware_in_use(
    middleware: str, ours: int, words: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    from canet_ros.demo import transport_check

    tried: list[dict[str, str]] = []

    def measure(environment: Any) -> Any:
        tried.append(dict(environment))
        return transport_check.TransportResult((30, ours)[len(tried) - 1], 3.0)

    monkeypatch.setattr(transport_check, "check_transport", measure)
    monkeypatch.setenv("RMW_IMPLEMENTATION", middleware)
    (finding,) = probes.transport()
    assert finding.verdict == "note"
    assert re.search(words[0], finding.text)
    assert re.search(words[1], finding.advice)
