# SPDX-License-Identifier: Apache-2.0
"""Findings of a probe, and the process that it runs in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass

from canet_ros.demo.processes import ChildProcess
from canet_ros.hints import see_docs

# Marks our lines among those that libraries print while loading.
_MARK = "canet-doctor-finding "


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        verdict: ``ok``; ``note``: works with a restriction; ``missing``: segmentation does not run.
        advice: the remedy; empty: none is needed.
    """

    subject: str
    verdict: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Probe:
    """One check, in a process of its own.

    Attributes:
        name: name of the function in ``probes``, and its arguments.
        subject, verdict: of the finding if the probe fails.
        limit_s: timeout.
    """

    name: tuple[str, ...]
    subject: str
    verdict: str = "missing"
    limit_s: float = 40.0


def run_probe(probe: Probe) -> list[Finding]:
    """Findings of the probe; if it crashed, hung or raised, that is the last finding."""
    command = [sys.executable, "-m", "canet_ros.doctor.probes", *probe.name]
    with ChildProcess(probe.subject, command) as process:
        try:
            status: int | None = process.wait(probe.limit_s)
        except subprocess.TimeoutExpired:
            status = None
    lines = process.output().strip().splitlines()
    found = [Finding(**json.loads(line[len(_MARK) :])) for line in lines if line.startswith(_MARK)]
    if status == 0:
        return found
    if status is None:
        how = f"did not answer within {probe.limit_s:g} s"
    elif status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
    else:
        how = lines[-1] if lines and not lines[-1].startswith(_MARK) else f"ended with status {status}"
    return [*found, Finding(probe.subject, probe.verdict, how, see_docs("how-to/install.md"))]


def emit(finding: Finding) -> None:
    """Send a finding from the probe's process to ``run_probe``."""
    print(f"\n{_MARK}{json.dumps(asdict(finding))}", flush=True)
