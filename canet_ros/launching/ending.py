# SPDX-License-Identifier: Apache-2.0
"""Ends the processes of a launch with it: if launch is killed, Linux signals them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from typing import NoReturn

_PARENT = "CANET_ENDS_WITH_PROCESS"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here, because little is safe between fork and exec


def ending_signals() -> tuple[signal.Signals, ...]:
    """Signals that end a program: SIGINT, SIGTERM and, except under nohup, SIGHUP."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal other than SIGINT requested the end of a command.

    Attributes:
        status: exit status of the signal in a shell, such as 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def end_by_exception(number: int, frame: object) -> NoReturn:
    """A signal handler that raises Ended."""
    raise Ended(number)


def ends_with_this_process() -> dict[str, str]:
    """Environment for our programs (``start.py``) that must not outlive this process."""
    return {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Receive SIGTERM when the parent ends, if it used ``ends_with_this_process``."""
    # Under a debugger or a shell, the parent is another process.
    if os.environ.get(_PARENT) == str(os.getppid()):
        ask_to_end_with_parent()
        if os.environ[_PARENT] != str(os.getppid()):  # the parent ended before the request
            os._exit(0)


def ask_to_end_with_parent() -> None:
    """Request SIGTERM from Linux when the parent ends (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def ending_with_parent(command: list[str]) -> list[str]:
    """A command that receives SIGINT when its parent ends; unchanged without util-linux."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT", "--", *command] if setpriv else command
