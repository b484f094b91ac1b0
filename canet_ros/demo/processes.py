# SPDX-License-Identifier: Apache-2.0
"""Child processes of the demo, the benchmark, the doctor and the tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from canet_ros.launching.ending import ask_to_end_with_parent

GRACE_S = 5.0  # from SIGTERM to SIGKILL


class ProcessError(RuntimeError):
    """A process ended unexpectedly; the message names it and gives the reason."""


class ChildProcess(subprocess.Popen[bytes]):
    """A child process in its own session: Ctrl-C reaches the parent alone, which then stops the child.

    Args:
        name: used in messages.
        command, environment: as for subprocess; without an environment, this process's.
        log: file for its output; None: a temporary file.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self._log_path = log
        # Stays open, so that the output can be read as long as this object lives.
        self._log: IO[bytes] = log.open("w+b") if log else tempfile.TemporaryFile()  # noqa: SIM115
        super().__init__(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            # Ends the child even if this process is killed.
            preexec_fn=ask_to_end_with_parent,
        )

    status = subprocess.Popen.poll
    """Exit status, negative for a signal; None while it runs."""
    signal = subprocess.Popen.send_signal

    def __exit__(self, *_: object) -> None:
        stop([self])

    def output(self) -> str:
        """Everything it has printed so far."""
        # Opened again, because the child shares the position of the open file.
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_bytes().decode("utf-8", errors="replace")

    def exit_message(self) -> str:
        """How it ended, and the last line of its output."""
        status = self.status()
        where = f", its log is {self._log_path}" if self._log_path else ""
        if status is not None and status < 0:
            return f"the {self.name} was ended by {signal.Signals(-status).name}{where}"
        lines = self.output().strip().splitlines()
        last = f"{lines[-1]}; " if lines else ""
        return f"{last}the {self.name} ended with status {status}{where}"

    def require_running(self) -> None:
        """Raise ProcessError with the exit message if it has ended."""
        if self.status() is not None:
            raise ProcessError(self.exit_message())


def stop(processes: Iterable[ChildProcess], grace_s: float = GRACE_S) -> None:
    """Stop running processes: SIGTERM to all, SIGKILL after ``grace_s`` seconds."""
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
    """Ignore SIGINT and SIGTERM while processes are stopped. Main thread only."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
