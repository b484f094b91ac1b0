# SPDX-License-Identifier: Apache-2.0
"""Entry points of the installed programs. A signal during their imports, which take over 0.5 s, ends them quietly."""

# Import only fast modules here: a signal before `_end_on_signals` prints a traceback.
import importlib
import os
import signal
import sys
import traceback

from canet_ros.launching.ending import end_with_parent, ending_signals

_USAGE = "usage: {} --ros-args [-p NAME:=VALUE]... [--params-file FILE]... [-r NAME:=NEW_NAME]..."


def segmentation_node() -> int:
    """Run the node and return the exit status."""
    return _run("segmentation_node", "canet_ros.ros.node")


def street_camera() -> int:
    """Run the synthetic camera and return the exit status."""
    return _run("street_camera", "canet_ros.demo.street_camera")


def _run(program: str, module: str) -> int:
    """Run ``main`` of a module; report an import failure in one line."""
    _end_on_signals()
    try:
        # Checked before any import: without a current folder, some libraries and Python 3.13.0 end the process.
        os.getcwd()
    except OSError:  # deleted, for example by a build
        print(f"{program}: the current folder was deleted: changing to /", file=sys.stderr)
        os.chdir("/")
    status = _usage_status(program)
    if status is not None:
        return status
    _set_transport(program)
    try:
        main = importlib.import_module(module).main
    except BaseException as error:  # missing or broken packages; also SystemExit and Rust panics
        if os.environ.get("CANET_ROS_DEBUG"):
            raise
        source = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {' '.join(str(error).split())} ({source.filename}, line {source.lineno})"
        print(f"{program}: cannot start: {text}; canet doctor checks the installation", file=sys.stderr)
        return 1
    return int(main())


def _set_transport(program: str) -> None:
    """Set the Fast DDS profile as the launch files do: the publisher needs it, and `ros2 run` sets none."""
    from canet_ros.launching.transport import transport_environment

    try:
        os.environ.update(transport_environment())
    except FileNotFoundError as error:
        print(f"{program}: images may be lost: {error}", file=sys.stderr, flush=True)


def _usage_status(program: str) -> int | None:
    """Exit status if the arguments outside of --ros-args, which ROS ignores, ask for help or are wrong; else None."""
    from canet_ros.launching.parameter_table import PARAMETERS
    from canet_ros.launching.transport import shared_memory_problem

    names = {spec.name for spec in PARAMETERS}
    in_ros_arguments = False
    for argument in sys.argv[1:]:
        if argument in ("--ros-args", "--"):
            in_ros_arguments = argument == "--ros-args"
        elif in_ros_arguments:
            continue
        elif argument in ("-h", "--help"):
            print(_USAGE.format(program))
            return 0
        elif argument.partition(":=")[0] in names or ":=" not in argument:  # else a remapping in its old form
            print(f"{program}: {argument} is not a ROS argument; {_USAGE.format(program)}", file=sys.stderr)
            return 2
    problem = shared_memory_problem()
    if problem:  # reported in advance: full shared memory ends the process with SIGBUS
        print(f"{program}: {problem}", file=sys.stderr, flush=True)
    return None


def _end_on_signals() -> None:
    for number in ending_signals():
        # An exception raised during the import of a C extension would surface as a different one.
        signal.signal(number, lambda *_: os._exit(0))
    end_with_parent()
