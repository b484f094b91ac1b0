# SPDX-License-Identifier: Apache-2.0
"""``canet benchmark``: engines in this process, and the node over DDS."""
