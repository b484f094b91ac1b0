# SPDX-License-Identifier: Apache-2.0
"""Renders a recorded drive as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import cv2

from canet_ros.bags.samples import Sample
from canet_ros.messages.images import encode_compressed
from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import resize
from canet_ros.pipeline.outputs import IMAGE_OUTPUTS

_THUMB_WIDTH_PX = 320
_LOWEST = 8


@dataclass
class CameraReport:
    """Data of one camera; each list has an entry per image.

    Attributes:
        shares: of each class, 0..1.
        thumbs: overlays as JPEG in base64.
    """

    topic: str
    times_ns: list[int] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    thumbs: list[str] = field(default_factory=list)

    def add(self, sample: Sample, classes: int) -> None:
        self.times_ns.append(sample.log_ns)
        self.shares.append([round(float(share), 4) for share in sample.shares(classes)])
        self.confidence.append(round(1 - sample.uncertainty, 4))
        height = max(1, round(_THUMB_WIDTH_PX * sample.frame.image.shape[0] / sample.frame.image.shape[1]))
        overlay = IMAGE_OUTPUTS["overlay"].render(sample.frame)
        _, data = encode_compressed(
            resize(overlay, (_THUMB_WIDTH_PX, height), cv2.INTER_AREA), "bgr8", "jpeg", 70
        )
        self.thumbs.append(base64.b64encode(data.tobytes()).decode())


@dataclass
class TopicTimes:
    """Count, first and last time, and the longest gap of a topic."""

    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    gap_ns: int = 0
    gap_at_ns: int = 0

    def add(self, log_ns: int) -> None:
        if self.count == 0:
            self.first_ns = log_ns
        elif log_ns - self.last_ns > self.gap_ns:
            self.gap_ns, self.gap_at_ns = log_ns - self.last_ns, self.last_ns
        self.last_ns = max(self.last_ns, log_ns)
        self.count += 1

    @property
    def rate_hz(self) -> float:
        span_ns = self.last_ns - self.first_ns
        return (self.count - 1) * 1e9 / span_ns if span_ns > 0 else 0.0


def render_page(
    title: str,
    start_ns: int,
    cameras: Sequence[CameraReport],
    topics: Mapping[str, TopicTimes],
    classes: ClassTable,
    facts: Mapping[str, str],
) -> str:
    """The page as HTML. Its policy forbids requests of any kind."""
    data = {
        "classes": [
            {"name": n, "color": f"rgb({r},{g},{b})"} for n, (r, g, b) in zip(classes.names, classes.colors)
        ],
        "cameras": [
            {
                "topic": c.topic,
                "t": [round((t - start_ns) / 1e9, 3) for t in c.times_ns],
                "shares": c.shares,
                "confidence": c.confidence,
                "thumbs": c.thumbs,
                "lowest": sorted(range(len(c.confidence)), key=c.confidence.__getitem__)[:_LOWEST],
            }
            for c in cameras
        ],
    }
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{t.count}</td><td>{t.rate_hz:.2f}</td>"
        f"<td>{t.gap_ns / 1e9:.3f}</td><td>{(t.gap_at_ns - start_ns) / 1e9 if t.gap_ns else 0:.1f}</td></tr>"
        for name, t in sorted(topics.items())
    )
    facts_text = " · ".join(f"{html.escape(key)} {html.escape(value)}" for key, value in facts.items())
    # "<" would end the script element early, whatever a topic is called.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = (resources.files("canet_ros.bags") / "report.html").read_text(encoding="utf-8")
    return (
        template.replace("@TITLE@", html.escape(title))
        .replace("@FACTS@", facts_text)
        .replace("@ROWS@", rows)
        .replace("@DATA@", text)
    )
