# SPDX-License-Identifier: Apache-2.0
"""The node. What imports it becomes a node's process, and takes few of glibc's memory arenas."""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h

# glibc gives threads an arena each, 8 a core, and what is freed in one stays there: threads that come and go with
# models, subscribers and cameras would grow the process for hours. It asks once, so before anything starts threads.
if "MALLOC_ARENA_MAX" not in os.environ:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)

# OpenCV reports on stderr, for each image, what is an exception or of no interest here; it asks when it is imported.
os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
