# SPDX-License-Identifier: Apache-2.0
"""Progress of a bag's segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from canet_ros.bags.bag import Losses

_MAX_NAMED_FRAMES = 200


@dataclass
class Progress:
    """Progress of a run; for the user, and to resume it.

    Attributes:
        cameras: number of cameras.
        read: messages of the source.
        log_ns: time of the last one.
        segmented, undecodable: numbers of images.
        undecodable_frames: topic, stamp in ns and problem of the first ones.
        counted: sentences about the bag by kind, and how often each was noted.
        losses: what could not be read.
        next_ns: beginning of the next file of OUT; None: the last one is complete.
    """

    cameras: int = 0
    read: int = 0
    log_ns: int = 0
    segmented: int = 0
    undecodable: int = 0
    undecodable_frames: list[tuple[str, int, str]] = field(default_factory=list)
    counted: dict[str, tuple[str, int]] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    next_ns: int | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        """Of the JSON form of ``dataclasses.asdict``."""
        return cls(**{**stored, "losses": Losses(**stored["losses"])})

    @property
    def notes(self) -> list[str]:
        """Sentences about the bag."""
        return [sentence.replace("{count}", str(count)) for sentence, count in self.counted.values()]

    def note(self, sentence: str, kind: str = "") -> None:
        """Note something; of one kind (default: the sentence) the first is kept, and ``{count}`` is their number."""
        kind = kind or sentence
        first, count = self.counted.get(kind, (sentence, 0))
        self.counted[kind] = first, count + 1

    def skip(self, topic: str, stamp_ns: int, problem: str) -> None:
        """Count an image that cannot be decoded."""
        self.undecodable += 1
        if len(self.undecodable_frames) < _MAX_NAMED_FRAMES:
            self.undecodable_frames.append((topic, stamp_ns, problem))
