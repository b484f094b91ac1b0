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
        last_stamp_ns, jumps_back: of the images' headers.
        infos: newest camera_info messages: stamp and CDR.
        waiting: images whose camera_info was not read yet: stamp, frame_id, size of the results.
        without_info: number of images without one.
        outdated: number of images whose camera_info is outdated, and the first such problem.
    """

    segmented: int = 0
    undecodable: int = 0
    last_stamp_ns: int = -1
    jumps_back: int = 0
    infos: list[tuple[int, bytes]] = field(default_factory=list)
    waiting: list[tuple[int, str, tuple[int, int]]] = field(default_factory=list)
    without_info: int = 0
    outdated: tuple[int, str] = (0, "")


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
    next_label_ns: int | None = None
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
        """Everything except what a resumed run restores from the messages that it skips."""
        values = asdict(self)
        for name in ("losses", "next_label_ns"):
            del values[name]
        for state in values["cameras"].values():
            del state["infos"], state["waiting"]
        return values

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        cameras = {topic: CameraState(**state) for topic, state in stored["cameras"].items()}
        return cls(**{**stored, "cameras": cameras})
