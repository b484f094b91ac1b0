# SPDX-License-Identifier: Apache-2.0
"""What the installed programs call. A signal while they still import, half a second and more, ends them quietly too."""

# Nothing is imported above that takes time: a signal before `_end_on_signals` gives Python's own traceback.
import os
import signal

from canet_ros.launching.ending import end_with_parent


def segmentation_node() -> int:
    """The node; the exit status is the return value."""
    _end_on_signals()
    from canet_ros.ros.node import main

    return main()


def street_camera() -> int:
    """The drawn camera; the exit status is the return value."""
    _end_on_signals()
    from canet_ros.demo.street_camera import main

    return main()


def _end_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by an exception: raised inside of a C extension's import it comes out as another one.
        signal.signal(number, lambda *_: os._exit(0))
    end_with_parent()
