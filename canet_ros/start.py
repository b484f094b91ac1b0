# SPDX-License-Identifier: Apache-2.0
"""What the installed programs call. A signal while they still import, half a second and more, ends them quietly too."""

# Nothing is imported above that takes time: a signal before `_end_on_signals` gives Python's own traceback.
import importlib
import os
import signal
import sys
import traceback

from canet_ros.launching.ending import end_with_parent, ending_signals

_USAGE = "usage: {} --ros-args [-p NAME:=VALUE]... [--params-file FILE]... [-r NAME:=NEW_NAME]..."


def segmentation_node() -> int:
    """The node; the exit status is the return value."""
    return _run("segmentation_node", "canet_ros.ros.node")


def street_camera() -> int:
    """The drawn camera; the exit status is the return value."""
    return _run("street_camera", "canet_ros.demo.street_camera")


def _run(program: str, module: str) -> int:
    """Run ``main`` of a module; what keeps it from being imported is one line."""
    _end_on_signals()
    try:
        # Before anything is imported: libraries that look for files, and Python 3.13.0 itself, end the process there.
        os.getcwd()
    except OSError:  # deleted by a build, say
        print(f"{program}: the current folder is gone, so that / takes its place", file=sys.stderr)
        os.chdir("/")
    status = _usage_status(program)
    if status is not None:
        return status
    _give_transport(program)
    try:
        main = importlib.import_module(module).main
    except BaseException as error:  # a package that is missing or broken; SystemExit too, and panics of Rust
        if os.environ.get("CANET_ROS_DEBUG"):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = (
            f"{type(error).__name__}: {' '.join(str(error).split())} ({place.filename}, line {place.lineno})"
        )
        print(f"{program}: does not start, {text}; canet doctor looks at what it needs", file=sys.stderr)
        return 1
    return int(main())


def _give_transport(program: str) -> None:
    """Our Fast DDS profile, as the launch files do: it counts on the publishing side, and `ros2 run` gives none."""
    from canet_ros.launching.transport import transport_environment

    try:
        os.environ.update(transport_environment())
    except FileNotFoundError as error:
        print(f"{program}: images may be lost: {error}", file=sys.stderr, flush=True)


def _usage_status(program: str) -> int | None:
    """The exit status, if the words beside ROS arguments say that the program must not start; ROS ignores them."""
    from canet_ros.launching.parameter_table import PARAMETERS
    from canet_ros.launching.transport import shared_memory_problem

    names = {spec.name for spec in PARAMETERS}
    of_ros = False
    for word in sys.argv[1:]:
        if word in ("--ros-args", "--"):
            of_ros = word == "--ros-args"
        elif of_ros:
            continue
        elif word in ("-h", "--help"):
            print(_USAGE.format(program))
            return 0
        elif word.partition(":=")[0] in names or ":=" not in word:  # else a remapping in its old form
            print(f"{program}: {word} is no ROS argument; {_USAGE.format(program)}", file=sys.stderr)
            return 2
    problem = shared_memory_problem()
    if problem:  # said before: it comes as a signal that cannot be answered
        print(f"{program}: {problem}", file=sys.stderr, flush=True)
    return None


def _end_on_signals() -> None:
    for number in ending_signals():
        # Not by an exception: raised inside of a C extension's import it comes out as another one.
        signal.signal(number, lambda *_: os._exit(0))
    end_with_parent()
