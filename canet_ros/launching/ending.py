# SPDX-License-Identifier: Apache-2.0
"""No process of a launch outlives it: where launch itself is killed and cannot end them, Linux does."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from typing import NoReturn

_PARENT = "CANET_ENDS_WITH_PROCESS"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # now: between a fork and exec little may be done


def ending_signals() -> tuple[signal.Signals, ...]:
    """What tells a program to end: Ctrl-C, SIGTERM, and a terminal that is closed, except under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C came that asks a command to end.

    Attributes:
        status: the exit status by which a shell knows the signal, 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def end_by_exception(number: int, frame: object) -> NoReturn:
    """A signal handler that raises Ended."""
    raise Ended(number)


def ends_with_this_process() -> dict[str, str]:
    """Environment of our own programs (``start.py``) that shall not outlive the process that starts them."""
    return {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Get SIGTERM when the parent ends, if it asked for that by ``ends_with_this_process``."""
    parent = os.environ.get(_PARENT)
    # Under a debugger or a shell the parent is another one, and ends as it likes.
    if parent != str(os.getppid()):
        return
    if not ask_to_end_with_parent():
        return
    if parent != str(os.getppid()):  # it ended before it was asked
        os._exit(0)


def ask_to_end_with_parent() -> bool:
    """Have Linux send this process SIGTERM when its parent ends (prctl(2)); False where it cannot."""
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    except AttributeError:  # not Linux
        return False
    return True


def ending_with_parent(command: list[str]) -> list[str]:
    """Another's program as a command that gets SIGINT when its parent ends, where util-linux is there to do it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT", "--", *command] if setpriv else command
