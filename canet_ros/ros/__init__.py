# SPDX-License-Identifier: Apache-2.0
"""The segmentation node. Importing this package limits glibc's memory arenas."""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h

# glibc creates up to 8 arenas per core and reuses memory only within an arena: short-lived threads would grow the
# process for hours. The limit must be set before the first thread starts.
if "MALLOC_ARENA_MAX" not in os.environ:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)

# OpenCV would report every undecodable image on stderr; it reads this variable when imported.
os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
