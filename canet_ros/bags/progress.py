# SPDX-License-Identifier: Apache-2.0
"""Progress of a bag's segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from canet_ros.bags.bag import Losses


@dataclass
class CameraState:
    """Progress of one camera.

    Attributes:
        segmented, undecodable: numbers of images.
        without_info: number of images without camera_info.
        without_cloud: number of images without a cloud or depth image near their stamp.
        bad_clouds: number of those that could not be used; ``cloud_problem`` says why the first one could not.
        outdated: number of images whose camera_info is outdated; ``outdated_problem`` is the first such problem.
    """

    segmented: int = 0
    undecodable: int = 0
    without_info: int = 0
    outdated: int = 0
    outdated_problem: str = ""
    without_cloud: int = 0
    bad_clouds: int = 0
    cloud_problem: str = ""


@dataclass
class Progress:
    """Progress of a run; for the user, and to resume it.

    Attributes:
        undecodable_frames: topic, stamp in ns and problem of the first ones.
        notes: sentences about the bag.
        losses: what could not be read.
        read: messages of the source.
    """

    cameras: dict[str, CameraState] = field(default_factory=dict)
    undecodable_frames: list[tuple[str, int, str]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    read: int = 0
    log_ns: int = 0

    @property
    def segmented(self) -> int:
        return sum(camera.segmented for camera in self.cameras.values())

    @property
    def undecodable(self) -> int:
        return sum(camera.undecodable for camera in self.cameras.values())

    def note(self, sentence: str) -> None:
        self.notes[sentence] = None

    def to_json(self) -> dict[str, Any]:
        """Everything except what a resumed run finds again."""
        values = asdict(self)
        del values["losses"]
        return values

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        cameras = {topic: CameraState(**state) for topic, state in stored["cameras"].items()}
        return cls(**{**stored, "cameras": cameras})
