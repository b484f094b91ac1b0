# SPDX-License-Identifier: Apache-2.0
"""How far the segmentation of a bag is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from canet_ros.bags.bag import Losses


@dataclass
class CameraState:
    """How far a camera's pictures are.

    Attributes:
        segmented, undecodable: pictures.
        last_stamp_ns, jumps_back: of the pictures' headers.
        infos: newest camera_info messages: stamp and CDR.
        waiting: pictures whose camera_info has not come: stamp, frame_id, size of the results.
        without_info: pictures that got none.
        outdated: pictures whose camera_info is far from them, and what was said of the first.
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
    """What was done so far; for the user, and for a run that goes on.

    Attributes:
        bad_pictures: topic, stamp in ns and what is wrong, of the first that could not be decoded.
        notes: sentences about the bag.
        losses: what could not be read of it.
        read: messages of the source.
    """

    cameras: dict[str, CameraState] = field(default_factory=dict)
    bad_pictures: list[tuple[str, int, str]] = field(default_factory=list)
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
        """Without what a run that goes on learns again while it passes over what was done."""
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
