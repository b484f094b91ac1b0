# SPDX-License-Identifier: Apache-2.0
"""Processes that we start and end: the demo's, the benchmark's, the doctor's, the tests'."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from canet_ros.launching.ending import ask_to_end_with_parent

Process = TypeVar("Process", bound="ChildProcess")

GRACE_S = 5.0  # between asking a process to end and ending it


class ProcessError(RuntimeError):
    """A process ended too early; the message says which and why."""


class ChildProcess:
    """A process in a session of its own, so that Ctrl-C is for its parent, which then ends it. What it prints is kept.

    Args:
        name: what messages call it.
        command, environment: as subprocess takes them; without an environment this process's.
        log: where its output goes; None: to a file that goes with this object.
        shows_stderr: whether stderr goes to this process's, for a progress bar, and not to the log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        shows_stderr: bool = False,
    ) -> None:
        self.name = name
        self._log_path = log
        # It stays open: what was printed can be read as long as this object lives.
        self._log: IO[bytes] = log.open("w+b") if log else tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=None if shows_stderr else subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            # Also where this process is killed, and so cannot end it.
            preexec_fn=ask_to_end_with_parent,
        )

    def __enter__(self: Process) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        stop([self])

    @property
    def pid(self) -> int:
        return self._process.pid

    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """All that it has printed so far."""
        # Opened anew: the position of the log as it is open here is the child's too.
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_bytes().decode("utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Exit status once it has ended.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return self._process.wait(timeout_s)

    def exit_message(self) -> str:
        """How it ended, and its last line."""
        status = self.status()
        where = f", its log is {self._log_path}" if self._log_path else ""
        if status is not None and status < 0:
            return f"the {self.name} was ended by {signal.Signals(-status).name}{where}"
        lines = self.output().strip().splitlines()
        last = f"{lines[-1]}; " if lines else ""
        return f"{last}the {self.name} ended with status {status}{where}"

    def require_running(self) -> None:
        """Raise ProcessError with the exit_message if it has ended."""
        if self.status() is not None:
            raise ProcessError(self.exit_message())


def stop(processes: Iterable[ChildProcess], grace_s: float = GRACE_S) -> None:
    """End those that still run: asked all together, after ``grace_s`` seconds killed."""
    running = [process for process in processes if process.status() is None]
    for process in running:
        process.signal(signal.SIGTERM)
    limit_s = time.monotonic() + grace_s
    for process in running:
        try:
            process.wait(max(0.0, limit_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.signal(signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """An impatient second Ctrl-C changes nothing while processes are ended. For the main thread alone."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
