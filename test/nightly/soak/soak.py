# SPDX-License-Identifier: Apache-2.0
"""A long run of the node as its users have it, with what changes and fails on a vehicle; nothing may drift."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import cv2
import numpy as np
from drift import TOLERANCES, judge
from process_usage import usage
from soak_graph import SoakGraph
from tqdm import tqdm

from canet_ros.demo.processes import GRACE_S, ChildProcess, ProcessError
from canet_ros.launching.transport import transport_environment, unused_domain_id
from canet_ros.opencv import Pixels
from canet_ros.simulation import StreetDrive

NODE = "/canet"
CAMERA_SIZE = (640, 480)
OVERLOAD = 6  # times the usual rate
# A round goes through all steps once: so many are aimed at, with steps of these lengths.
_ROUNDS = 12
_SHORTEST_STEP_S, _LONGEST_STEP_S = 1.0, 10.0
_START_TIMEOUT_S = 120.0
_RECOVERY_S = 10.0
_HEALTH_TIMEOUT_S = 12.0  # of which 5 s are the window in which diagnostics count
_LONGEST_WITHOUT_DIAGNOSTICS_S = 5.0
_MOST_FAULTS = 200
_OUTPUTS = (
    ("mask",),
    ("mask", "overlay/compressed"),
    ("mask", "confidence", "mask/compressed"),
    ("mask", "overlay", "color_mask"),
)


@dataclass(frozen=True)
class SoakSettings:
    """What is run.

    Attributes:
        minutes: how long; the last round is cut off where it is.
        parameters: of the node, beside its image topics.
        cameras: how many, 1 or more.
        rate_hz: at which each camera usually sends.
        seed: of the synthetic streets and of what changes when.
        program: Python's arguments that run the node.
    """

    minutes: float
    parameters: Mapping[str, str]
    cameras: int = 3
    rate_hz: float = 3.0
    seed: int = 0
    program: Sequence[str] = ("-m", "canet_ros.ros.node")


@dataclass
class SoakReport:
    """What came of it; ``passed`` says it in one word.

    Attributes:
        minutes: one entry a minute: what was sent and came, what the node held, which steps ran.
        rounds: one entry a round, taken in like conditions: what is judged.
        faults: what must not have been: when, in which step, and what.
        verdicts: of the figures of the rounds, in words.
        drifts: figures that grew.
    """

    ran_s: float = 0.0
    minutes: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, float]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[str, str] = field(default_factory=dict)
    drifts: list[str] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.faults and not self.drifts and self.totals.get("masks", 0) > 0


class _TimeIsOver(Exception):  # noqa: N818
    """The minutes that were asked for have passed."""


class Soak:
    """One long run.

    Args:
        say: takes a line a minute, and each fault.

    Attributes:
        report: as far as it has come.
    """

    def __init__(self, settings: SoakSettings, say: Callable[[str], None]) -> None:
        self.report = SoakReport()
        self._settings = settings
        self._say = say
        self._random = random.Random(settings.seed)
        self._topics = [f"/soak{i}/image_raw" for i in range(settings.cameras)]
        self._pictures = _pictures(settings.seed)
        self._step = "start"
        self._steps_of_minute: list[str] = []
        self._start_s = time.monotonic()
        self._end_s = float("inf")
        self._graph: SoakGraph
        self._node: ChildProcess
        self._bar: Any = None
        self._step_s = min(
            _LONGEST_STEP_S, max(_SHORTEST_STEP_S, 60 * settings.minutes / (_ROUNDS * len(_STEPS)))
        )

    def run(self) -> None:
        """Run for as long as was asked, or until the node has ended, and judge.

        Raises:
            ProcessError: the node did not start.
            KeyboardInterrupt: it was interrupted; the report tells what came until then.
        """
        os.environ.update(transport_environment())
        os.environ["ROS_DOMAIN_ID"] = str(unused_domain_id())
        seconds = 60 * self._settings.minutes
        with ChildProcess("node", self._command()) as self._node:
            self._graph = SoakGraph(NODE, self._topics, self._pictures, self._fault)
            try:
                with tqdm(
                    total=round(seconds), desc="soak", unit="s", disable=None, file=sys.stderr
                ) as self._bar:
                    self._begin(seconds)
                    try:
                        for name in itertools.cycle(_STEPS):
                            self._take(name)
                    except _TimeIsOver:
                        pass
                    except ProcessError as error:
                        self._fault(str(error))
                    self._end()
            finally:
                self._finish()
                self._graph.close()

    def _command(self) -> list[str]:
        values = {
            **self._settings.parameters,
            "image_topics": f"[{', '.join(self._topics)}]",
            "diagnostics_period": "0.5",
            "stale_after": "3.0",
        }
        command = [sys.executable, *self._settings.program, "--ros-args", "-r", f"__node:={NODE[1:]}"]
        return command + list(itertools.chain.from_iterable(("-p", f"{k}:={v}") for k, v in values.items()))

    # The run

    def _begin(self, seconds: float) -> None:
        """Wait for the node, and take the first mask of each image."""
        self._graph.listen(_OUTPUTS[0])
        limit_s = time.monotonic() + _START_TIMEOUT_S
        for picture in range(len(self._pictures)):
            for camera in (0, len(self._topics) - 1):  # one is the reference, the other is held to it
                while not self._comes_back(camera, picture, 1.0):
                    self._node.require_running()
                    if time.monotonic() > limit_s:
                        raise ProcessError(
                            f"no mask came within {_START_TIMEOUT_S:.0f} s: {self._node.exit_message()}"
                        )
        self._graph.longest_without_diagnostics_s = 0.0
        for whose in (0, 1):
            self._graph.counted(whose)
        self._start_s = time.monotonic()
        self._end_s = self._start_s + seconds

    def _take(self, name: str) -> None:
        self._step = name
        self._steps_of_minute.append(name)
        _STEPS[name](self)
        self._recover()

    def _end(self) -> None:
        """The node must end as it is asked to."""
        self._step = "end"
        if self._node.status() is None:
            self._node.signal(signal.SIGTERM)
            try:
                status = self._node.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._fault(f"the node did not end within {GRACE_S:.0f} s of SIGTERM")
            else:
                if status != 0:
                    self._fault(self._node.exit_message())
        if "Traceback" in self._node.output():
            log = self._node.output()
            self._fault(f"a traceback in the node's log: {log[log.index('Traceback') :][:1000]}")

    def _finish(self) -> None:
        report = self.report
        report.ran_s = round(time.monotonic() - self._start_s, 1)
        if self._steps_of_minute:
            self._close_minute()
        seen = self._graph.seen
        report.totals = {
            "sent": seen.sent,
            "masks": seen.masks,
            "wrong_masks": seen.wrong,
            "least_agreement": round(seen.least_agreement, 6),
            "longest_without_diagnostics_s": round(self._graph.longest_without_diagnostics_s, 2),
        }
        for name, tolerance in TOLERANCES.items():
            verdict = judge([values[name] for values in report.rounds], tolerance)
            report.verdicts[name] = str(verdict)
            if verdict.drifts:
                report.drifts.append(name)

    def _fault(self, text: str) -> None:
        minute = (time.monotonic() - self._start_s) / 60
        if len(self.report.faults) < _MOST_FAULTS:
            self.report.faults.append({"minute": round(minute, 2), "step": self._step, "fault": text})
            self._say(f"minute {minute:.1f}, {self._step}: {text}")

    def _close_minute(self) -> None:
        number = len(self.report.minutes) + 1
        seen = self._graph.counted(0)
        held: dict[str, Any] = {}
        if self._node.status() is None:
            held = asdict(usage(self._node.pid))
            held["memory_mb"] = round(held["memory_mb"], 1)
        entry = {
            "minute": number,
            "sent": seen.sent,
            "masks": seen.masks,
            "wrong_masks": seen.wrong,
            "least_agreement": round(seen.least_agreement, 6),
            "latency_ms": round(median(seen.latency_ms), 1) if seen.latency_ms else None,
            **held,
            "faults": sum(number - 1 <= fault["minute"] < number for fault in self.report.faults),
            "steps": self._steps_of_minute,
        }
        self._steps_of_minute = []
        self.report.minutes.append(entry)
        self._say(
            f"minute {number}: {entry['sent']} sent, {entry['masks']} masks, {entry['wrong_masks']} wrong; "
            f"{held.get('memory_mb', '-')} MB, {held.get('descriptors', '-')} descriptors, "
            f"{held.get('threads', '-')} threads; {entry['latency_ms']} ms; {entry['faults']} faults"
        )

    # What steps are made of

    def _ticks(self, seconds: float, rate_hz: float) -> Iterator[int]:
        """Numbers at a rate; what comes is taken between them."""
        start_s = time.monotonic()
        for number in itertools.count():
            due_s = start_s + number / rate_hz
            if due_s - start_s >= seconds:
                return
            self._spin(max(0.001, due_s - time.monotonic()))
            yield number

    def _spin(self, seconds: float) -> None:
        self._graph.spin(seconds)
        self._node.require_running()
        now_s = time.monotonic()
        if self._end_s == float("inf"):
            return
        self._bar.update(max(0, round(min(now_s, self._end_s) - self._start_s) - self._bar.n))
        if now_s - self._start_s >= 60 * (len(self.report.minutes) + 1):
            self._close_minute()
        without_s = now_s - self._graph.diagnostics_s
        if without_s > _LONGEST_WITHOUT_DIAGNOSTICS_S:
            self._graph.diagnostics_s = now_s
            self._fault(f"nothing came on /diagnostics for {without_s:.1f} s")
        if now_s >= self._end_s:
            raise _TimeIsOver

    def _drive(self, seconds: float, rate_hz: float, cameras: range | None = None) -> None:
        """All cameras send at a rate, the images in turn."""
        for number in self._ticks(seconds, rate_hz):
            for camera in cameras or range(len(self._topics)):
                self._graph.send(camera, (number + camera) % len(self._pictures))

    def _comes_back(self, camera: int, picture: int, timeout_s: float) -> bool:
        """Send an image; whether its mask comes in time."""
        key = self._graph.send(camera, picture)
        limit_s = time.monotonic() + timeout_s
        while key is not None and self._graph.pending(key) and time.monotonic() < limit_s:
            self._spin(0.01)
        return key is not None and not self._graph.pending(key)

    def _recover(self) -> None:
        """Whatever was done: every camera has masks again soon."""
        limit_s = time.monotonic() + _RECOVERY_S
        for camera in range(len(self._topics)):
            while not self._comes_back(camera, self._random.randrange(len(self._pictures)), 0.5):
                if time.monotonic() > limit_s:
                    self._fault(f"camera {camera} had no mask within {_RECOVERY_S:.0f} s after it")
                    return

    def _wait_for_health(self) -> None:
        """Send right images until everything on /diagnostics is OK."""
        limit_s = time.monotonic() + _HEALTH_TIMEOUT_S
        while troubles := [
            f"{name}: {text}" for name, (level, text, _) in self._graph.statuses.items() if level
        ]:
            if time.monotonic() > limit_s:
                self._fault(f"/diagnostics is not OK while all is right: {'; '.join(troubles)}")
                return
            self._drive(0.5, self._settings.rate_hz)

    def _wait_for_account(self) -> None:
        """All that came to the node was published or dropped, by its own account."""
        limit_s = time.monotonic() + _HEALTH_TIMEOUT_S
        while True:
            open_accounts = []
            for topic in self._topics:
                values = self._graph.statuses.get(topic, (0, "", {}))[2]
                received, fates = (
                    int(values.get("received", 0)),
                    sum(int(values.get(name, 0)) for name in ("published", "dropped")),
                )
                if received != fates:
                    open_accounts.append(f"{topic}: {received} received, {fates} published or dropped")
            if not open_accounts:
                return
            if time.monotonic() > limit_s:
                self._fault(f"not accounted for: {'; '.join(open_accounts)}")
                return
            self._spin(0.2)

    # The steps

    def _steady(self) -> None:
        """All cameras at their rate, all is well; what is judged is taken here."""
        self._graph.listen(_OUTPUTS[0])
        self._recover()
        self._wait_for_health()
        self._graph.counted(1)
        self._drive(self._step_s, self._settings.rate_hz)
        self._recover()
        latency_ms = self._graph.counted(1).latency_ms
        self._wait_for_account()
        if not latency_ms:  # no mask came, which is said
            return
        held = usage(self._node.pid)
        # The quickest fifth: what is slower is the machine's other work.
        quick_ms = float(np.percentile(latency_ms, 20))
        self.report.rounds.append(
            {
                "minute": round((time.monotonic() - self._start_s) / 60, 2),
                **asdict(held),
                "latency_ms": round(quick_ms, 2),
            }
        )

    def _one_camera(self) -> None:
        self._drive(self._step_s, self._settings.rate_hz, range(1))

    def _overload(self) -> None:
        self._drive(self._step_s, OVERLOAD * self._settings.rate_hz)

    def _live_parameters(self) -> None:
        self._graph.listen(_OUTPUTS[1])
        self._graph.thresholded = True
        for _ in self._ticks(self._step_s, 2.0):
            self._graph.set_parameters(
                {
                    "overlay_alpha": round(self._random.random(), 2),
                    "jpeg_quality": self._random.randint(1, 100),
                    "min_confidence": self._random.choice((0.0, 0.5, 0.9)),
                    "max_rate": self._random.choice((0.0, 2.0, 100.0)),
                    "max_age": self._random.choice((0.0, 5.0)),
                }
            )
            self._graph.set_parameters({"overlay_alpha": 7.0}, accepted=False)
            self._drive(0.4, self._settings.rate_hz)
        self._graph.set_parameters({"min_confidence": 0.0, "max_rate": 0.0, "max_age": 0.0})
        self._recover()  # until what was on its way with the old threshold has come
        self._graph.thresholded = False

    def _subscribers(self) -> None:
        for _ in self._ticks(self._step_s, 1.0):
            self._graph.listen(self._random.choice((*_OUTPUTS, ())))
            self._drive(0.8, self._settings.rate_hz)
        self._graph.listen(_OUTPUTS[0])

    def _lifecycle(self) -> None:
        for _ in self._ticks(self._step_s, 0.5):
            self._graph.transition("deactivate")
            self._drive(0.3, self._settings.rate_hz)
            self._graph.transition("activate")
            self._drive(0.5, self._settings.rate_hz)

    def _other_cameras(self) -> None:
        """Unconfigured, and configured anew with fewer cameras, then with all."""
        for topics in (self._topics[:1], self._topics):
            for label in ("deactivate", "cleanup"):
                self._graph.transition(label)
            self._graph.set_parameters({"image_topics": topics})
            for label in ("configure", "activate"):
                self._graph.transition(label)
            self._drive(max(1.0, self._step_s / 2), self._settings.rate_hz)

    def _paused(self) -> None:
        for _ in self._ticks(self._step_s, 1.0):
            self._graph.enable(False)
            self._drive(0.4, self._settings.rate_hz)
            self._graph.enable(True)
            self._drive(0.4, self._settings.rate_hz)

    def _camera_gone(self) -> None:
        camera = self._random.randrange(len(self._topics))
        for _ in self._ticks(self._step_s, 0.5):
            self._graph.disconnect(camera)
            self._drive(0.7, self._settings.rate_hz)
            self._graph.connect(camera)
            self._drive(0.7, self._settings.rate_hz)

    def _broken_images(self) -> None:
        """They must be counted as bad, and said."""
        name = self._topics[0]
        before = self._dropped_bad(name)
        for number in self._ticks(self._step_s, 2 * self._settings.rate_hz):
            self._graph.send_broken(0, _SPOILT[number % len(_SPOILT)])
            for camera in range(len(self._topics)):
                self._graph.send(camera, number % len(self._pictures))
        limit_s = time.monotonic() + _HEALTH_TIMEOUT_S
        while self._dropped_bad(name) == before or not self._graph.statuses[name][0]:
            if time.monotonic() > limit_s:
                self._fault("broken images came, and /diagnostics says nothing of them")
                return
            self._graph.send_broken(0, _SPOILT[0])
            self._spin(0.1)

    def _dropped_bad(self, name: str) -> int:
        return int(self._graph.statuses.get(name, (0, "", {}))[2].get("dropped_bad", 0))

    def _stamps_jump(self) -> None:
        for number in self._ticks(self._step_s, 2 * self._settings.rate_hz):
            jump_s = self._random.choice((3600.0, -3600.0, 0.0, 1e6, -1e6))
            for camera in range(len(self._topics)):
                self._graph.send(camera, number % len(self._pictures), jump_s)
        # One after the other: they all have the same stamp, which is none.
        for camera in range(len(self._topics)):
            key = self._graph.send(camera, 0, float("-inf"))
            limit_s = time.monotonic() + 1.0
            while key is not None and self._graph.pending(key) and time.monotonic() < limit_s:
                self._spin(0.01)


_STEPS: dict[str, Callable[[Soak], None]] = {
    "steady": Soak._steady,
    "one camera": Soak._one_camera,
    "overload": Soak._overload,
    "live parameters": Soak._live_parameters,
    "subscribers come and go": Soak._subscribers,
    "deactivate, activate": Soak._lifecycle,
    "other cameras": Soak._other_cameras,
    "paused": Soak._paused,
    "camera gone and back": Soak._camera_gone,
    "broken images": Soak._broken_images,
    "stamps jump": Soak._stamps_jump,
}


def _cut_off(message: Any) -> None:
    message.data = message.data[: len(message.data) // 2]


def _unknown_encoding(message: Any) -> None:
    message.encoding = "soaked"


def _short_rows(message: Any) -> None:
    message.step = 1


def _empty(message: Any) -> None:
    message.width = message.height = message.step = 0
    message.data = message.data[:0]


def _huge(message: Any) -> None:
    message.width = message.height = 60_000
    message.step = 180_000


_SPOILT = (_cut_off, _unknown_encoding, _short_rows, _empty, _huge)


def _pictures(seed: int) -> list[Pixels]:
    """Of a synthetic street, some seconds apart; the last ones smaller, and grey."""
    drive = StreetDrive(seed, *CAMERA_SIZE)
    pictures: list[Pixels] = [drive.frame(number * 40).image for number in range(4)]
    smaller: Pixels = np.ascontiguousarray(pictures[1][::2, ::2])
    grey: Pixels = cv2.cvtColor(pictures[2], cv2.COLOR_BGR2GRAY).astype(np.uint8)
    return [*pictures, smaller, grey]
