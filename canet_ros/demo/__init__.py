# SPDX-License-Identifier: Apache-2.0
"""``canet demo``: street camera, recorder, and the processes they run in."""
