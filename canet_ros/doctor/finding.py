# SPDX-License-Identifier: Apache-2.0
"""What a probe finds, and the process that it runs in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass

from canet_ros.hints import see_docs
from canet_ros.launching.ending import ask_to_end_with_parent

# What libraries print as they load is not ours to read.
_MARK = "canet-doctor-finding "


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        verdict: ``ok``; ``note``: works, but something is lost; ``missing``: the main job does not run.
        advice: what to do; empty where there is nothing to do.
    """

    subject: str
    verdict: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Probe:
    """One look, in a process of its own.

    Attributes:
        name: of the function in ``probes``, and its arguments.
        subject: of the finding where it does not come to its end.
        verdict: of that finding.
        limit_s: after this long it is ended.
    """

    name: tuple[str, ...]
    subject: str
    verdict: str = "missing"
    limit_s: float = 40.0


def run_probe(probe: Probe) -> list[Finding]:
    """What the probe found; if it died, hung or raised, that is the last finding. Never raises for its sake."""
    command = [sys.executable, "-m", "canet_ros.doctor.probes", *probe.name]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as err,
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=ask_to_end_with_parent,
        )
        try:
            status: int | None = process.wait(probe.limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        err.seek(0)
        lines, errors = out.read().splitlines(), err.read().strip().splitlines()
    found = [Finding(**json.loads(line[len(_MARK) :])) for line in lines if line.startswith(_MARK)]
    if status == 0:
        return found
    if status is None:
        how = f"did not answer within {probe.limit_s:g} s"
    elif status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    else:
        how = errors[-1] if errors else f"ended with status {status}"
    return [*found, Finding(probe.subject, probe.verdict, how, see_docs("install.md"))]


def say(finding: Finding) -> None:
    """Hand a finding from a probe's process to the one that waits for it."""
    print(f"\n{_MARK}{json.dumps(asdict(finding))}", flush=True)
